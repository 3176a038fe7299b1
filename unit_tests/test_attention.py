"""Attention over paged KV: against dense attention, for every feature that models ask for."""

import pytest
import torch

from langchain_eft.engine.attention import ForwardBatch, Row, causal_mask, paged_attention
from langchain_eft.engine.kv_cache import BlockAllocator, KVPool, token_slots

HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 8, 4


class Layer(torch.nn.Module):
    layer_idx = 3


def dense(query, keys, values, window, softcap, sinks):
    """[H, T, D] attention of a whole sequence, written from the definitions."""
    groups = query.shape[0] // keys.shape[0]
    scores = query @ keys.repeat_interleave(groups, 0).transpose(1, 2) * DIM**-0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    i, j = torch.meshgrid(torch.arange(scores.shape[1]), torch.arange(scores.shape[2]), indexing="ij")
    visible = (j <= i) & (j > i - (window or 10**9))
    weights = scores.masked_fill(~visible, float("-inf")).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[:, None, None]
    return weights / total @ values.repeat_interleave(groups, 0)


@pytest.mark.parametrize(
    ("window", "softcap", "sinks"),
    [(None, None, None), (3, None, None), (None, 2.0, None), (5, 1.5, None), (4, None, True)],
)
def test_ragged_chunks_equal_dense_attention(window, softcap, sinks):
    torch.manual_seed(0)
    sinks = torch.randn(HEADS) if sinks else None
    lengths, allocator, pool = [13, 7, 10], BlockAllocator(20, BLOCK), KVPool(20 * BLOCK)
    data = [
        (torch.randn(HEADS, n, DIM), torch.randn(KV_HEADS, n, DIM), torch.randn(KV_HEADS, n, DIM))
        for n in lengths
    ]
    tables = [[], [], []]
    done, outputs = [0, 0, 0], [[], [], []]
    # Rows advance by different amounts and interleave their blocks; some rounds leave a row out.
    for counts in ([5, 1, 0], [1, 3, 4], [0, 1, 1], [4, 2, 5], [3, 0, 0]):
        rows, pieces, start = [], [], 0
        for r, count in enumerate(counts):
            if not count:
                continue
            stop = done[r] + count
            assert allocator.grow(tables[r], stop)
            rows.append((r, Row(start, count, stop, list(tables[r]))))
            pieces.append([t[:, done[r] : stop] for t in data[r]])
            start, done[r] = start + count, stop
        query, key, value = (torch.cat([p[i] for p in pieces], 1)[None] for i in range(3))
        batch = ForwardBatch(
            ids=torch.zeros(1, start, dtype=torch.int64),
            positions=torch.zeros(1, start, dtype=torch.int64),
            rows=[row for _, row in rows],
            pool=pool,
            block_size=BLOCK,
            variants=torch.zeros(start, dtype=torch.int64),
        )
        out, _ = paged_attention(
            Layer(),
            query,
            key,
            value,
            None,
            scaling=DIM**-0.5,
            eft=batch,
            sliding_window=window,
            softcap=softcap,
            s_aux=sinks,
        )
        for r, row in rows:
            outputs[r].append(out[0, row.start : row.start + row.queries].transpose(0, 1))
    assert done == lengths
    for (query, keys, values), parts in zip(data, outputs, strict=True):
        torch.testing.assert_close(torch.cat(parts, 1), dense(query, keys, values, window, softcap, sinks))


def test_masks_are_built_only_where_something_is_hidden():
    cpu = torch.device("cpu")
    assert causal_mask(1, 9, None, cpu) is None
    assert causal_mask(1, 9, 9, cpu) is None
    assert causal_mask(1, 4, 2, cpu).tolist() == [[False, False, True, True]]
    assert causal_mask(2, 3, None, cpu).tolist() == [[True, True, False], [True, True, True]]


def test_blocks_are_shared_out_and_given_back():
    allocator, one, two = BlockAllocator(4, BLOCK), [], []
    assert allocator.grow(one, 9)
    assert len(one) == 3
    assert not allocator.grow(two, 5)
    assert two == []
    assert allocator.free_blocks == 1
    assert allocator.grow(one, 12)
    assert len(one) == 3
    allocator.release(one)
    assert (allocator.free_blocks, one) == (4, [])


def test_slots_follow_the_block_table():
    assert token_slots([5, 2], 3, 7, BLOCK).tolist() == [23, 8, 9, 10]
