"""Keys of blocks say which variants have keys and values of their own there, and since where."""

from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.block_keys import BlockKeys, unadapted_readers

BASE, REFERENCE, PLAIN = Term(0), Term(1), Term(1, 1)
BLOCK, TEXT = 4, list(range(20))


def activated(begin, variant=2):
    return Term(1, variant, begin=begin)


def keys(*readers, tokens=TEXT):
    return BlockKeys(readers).first(len(tokens) // BLOCK, tokens, BLOCK)


def in_common(one, two):
    return [a == b for a, b in zip(one, two, strict=True)]


def test_activated_adapters_and_their_model_have_the_blocks_before_the_invocation_in_common():
    without = keys(BASE, REFERENCE)
    for begin, shared in ((0, 0), (3, 0), (4, 1), (9, 2), (11, 2), (19, 4)):
        expected = [number < shared for number in range(5)]
        assert in_common(without, keys(BASE, REFERENCE, activated(begin))) == expected
        assert in_common(without, keys(BASE, activated(begin))) == expected
        assert in_common(keys(BASE, activated(begin, 3)), keys(BASE, activated(begin))) == expected
    assert in_common(keys(BASE, activated(9)), keys(BASE, activated(10))) == [True, True, False, False, False]
    assert not any(in_common(without, keys(BASE, REFERENCE, PLAIN)))


def test_keys_of_a_text_that_grows_stay_and_name_all_tokens_so_far():
    growing = BlockKeys([BASE])
    assert growing.first(2, TEXT[:8], BLOCK) == keys(BASE)[:2]
    assert growing.first(5, TEXT, BLOCK) == keys(BASE)
    assert growing.first(1, TEXT, BLOCK) == keys(BASE)[:1]
    assert not any(in_common(keys(BASE), keys(BASE, tokens=[99, *TEXT[1:]])))


def test_later_invocations_go_on_from_what_has_been_read_without_adapters():
    assert unadapted_readers([BASE, REFERENCE, PLAIN, activated(9)]) == {BASE, REFERENCE, PLAIN}
    assert unadapted_readers([BASE, activated(9)]) is None, "nobody has read the rest without the adapter"
    assert unadapted_readers([BASE, REFERENCE, PLAIN]) is None, "no adapter has been activated"
