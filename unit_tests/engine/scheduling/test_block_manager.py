"""Blocks of KV memory: shared out, given back, and found again by their content."""

from langchain_eft.engine.scheduling.block_manager import BlockManager, block_key

BLOCK = 4


def keys(tokens, salt=b""):
    keys_so_far = []
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        keys_so_far.append(block_key(keys_so_far[-1] if keys_so_far else salt, tokens[start : start + BLOCK]))
    return keys_so_far


def three_cached_blocks():
    """A manager of four blocks, the table of a text that fills three, and their keys."""
    blocks, table, names = BlockManager(4, BLOCK), [], keys(range(12))
    assert blocks.allocate(table, 12)
    for block, key in zip(table, names, strict=True):
        blocks.cache_block(block, key)
    return blocks, table, names


def test_a_key_names_everything_before_its_block():
    one, two = keys([1, 2, 3, 4, 5, 6, 7, 8]), keys([9, 2, 3, 4, 5, 6, 7, 8])
    assert one[1] != two[1]
    assert keys([1, 2, 3, 4], b"other models") != one[:1]
    assert keys([1, 2, 3, 4, 5, 6, 7, 8, 9]) == one


def test_freed_blocks_are_reused_until_their_memory_is_needed():
    blocks, table, names = three_cached_blocks()
    held = list(table)
    blocks.free(table)
    assert blocks.num_free_blocks == 4
    again = blocks.get_cached_blocks(names)
    assert again == held
    assert blocks.num_free_blocks == 1
    shared = blocks.get_cached_blocks(names[:2])
    blocks.free(again)
    assert blocks.num_free_blocks == 2
    # The end of a text is evicted first. Blocks in use stay.
    fresh = []
    assert blocks.allocate(fresh, 8)
    assert blocks.get_cached_blocks(names) == shared
    assert not blocks.contains(names[2])


def test_blocks_are_allocated_and_freed():
    blocks, one, two = BlockManager(4, BLOCK), [], []
    assert blocks.allocate(one, 9)
    assert len(one) == 3
    assert not blocks.allocate(two, 5)
    assert two == []
    assert blocks.num_free_blocks == 1
    assert blocks.allocate(one, 12)
    assert len(one) == 3
    blocks.free(one)
    assert (blocks.num_free_blocks, one) == (4, [])


def test_forgotten_blocks_are_not_found_again():
    blocks, table, names = three_cached_blocks()
    blocks.forget(table[1:])
    blocks.free(table)
    assert blocks.get_cached_blocks(names) == [0]
    assert blocks.num_free_blocks == 3


def test_a_block_with_two_keys_is_found_by_either_until_it_is_gone():
    blocks, table, names = three_cached_blocks()
    other = keys(range(12), b"fewer models")
    for block, key in zip(table, other, strict=True):
        blocks.cache_block(block, key)
    assert blocks.get_cached_blocks(other) == blocks.get_cached_blocks(names) == table
    for _ in range(2):
        blocks.free(list(table))
    blocks.forget(table[2:])
    blocks.free(list(table))
    assert blocks.allocate(fresh := [], 12)
    assert not any(map(blocks.contains, [*names[1:], *other[1:]]))
    assert [*map(blocks.contains, (names[0], other[0]))] == [True, True]
    assert blocks.allocate(fresh, 16)
    assert not any(map(blocks.contains, (names[0], other[0])))
