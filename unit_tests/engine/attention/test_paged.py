"""Attention over paged KV against dense attention, for every feature that models use."""

from dataclasses import replace

import pytest
import torch

from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan
from langchain_eft.engine.attention.kv_pool import KVPool, token_slots
from langchain_eft.engine.attention.paged import paged_attention
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import KEY_BLOCK, causal_bias
from langchain_eft.engine.scheduling.block_manager import BlockManager

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
    lengths, blocks, pool = [13, 7, 10], BlockManager(20, BLOCK), KVPool(20 * BLOCK)
    data = [
        (torch.randn(HEADS, n, DIM), torch.randn(KV_HEADS, n, DIM), torch.randn(KV_HEADS, n, DIM))
        for n in lengths
    ]
    tables = [[], [], []]
    done, outputs = [0, 0, 0], [[], [], []]
    # Rows advance by different amounts, and their blocks interleave. Some rounds leave a row out.
    for counts in ([5, 1, 0], [1, 3, 4], [0, 1, 1], [4, 2, 5], [3, 0, 0]):
        rows, pieces, start = [], [], 0
        for r, count in enumerate(counts):
            if not count:
                continue
            stop = done[r] + count
            assert blocks.allocate(tables[r], stop)
            rows.append((r, QuerySpan(start, count, stop, list(tables[r]))))
            pieces.append([t[:, done[r] : stop] for t in data[r]])
            start, done[r] = start + count, stop
        query, key, value = (torch.cat([p[i] for p in pieces], 1)[None] for i in range(3))
        batch = ForwardBatch(
            ids=torch.zeros(1, start, dtype=torch.int64),
            positions=torch.zeros(1, start, dtype=torch.int64),
            spans=[span for _, span in rows],
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


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("number", [2, 3])
def test_rows_that_begin_alike_attend_as_if_they_were_alone(window, number):
    """Two or three rows of one prompt, and a row of another one, with blocks of their own at the end."""
    torch.manual_seed(0)
    block, dim, length, queries = 16, 64, 300, 2
    pool = KVPool(100 * block)
    pool.layer(Layer.layer_idx, torch.empty(1, 3, dim), torch.empty(1, 3, dim)).normal_()
    prompt = list(range(17))
    tables = [[*prompt, 40, 41], [*prompt, 42, 43], [*prompt, 44, 45], [*range(50, 67), 46, 47]]
    states = [torch.randn(1, heads, 4 * queries, dim) for heads in (9, 3, 3)]

    def attended(rows):
        tokens = [i * queries + j for i in rows for j in range(queries)]
        spans = [QuerySpan(i * queries, queries, length, tables[row]) for i, row in enumerate(rows)]
        numbers = torch.zeros(1, len(tokens), dtype=torch.int64)
        batch = ForwardBatch(numbers, numbers, numbers[0], pool, block, spans)
        new = [state[:, :, tokens] for state in states]
        out, _ = paged_attention(Layer(), *new, None, scaling=0.1, eft=batch, sliding_window=window)
        shared = [(len(group.spans), group.num_shared) for group in batch.groups]
        return out[0].unflatten(0, (len(rows), queries)), shared

    rows = [*range(number), 3]
    together, shared = attended(rows)
    assert shared == [(number, 2), (1, 0)], "those of one prompt read 256 of 272 positions once"
    for row, result in zip(rows, together, strict=True):
        alone, _ = attended([row])
        assert torch.equal(result, alone[0])


def test_rows_with_long_contexts_attend_in_parts():
    lengths = [3000, 2990, 2980, 40]
    spans = [QuerySpan(i, 1, n, [i * 200 + j for j in range(-(-n // 16))]) for i, n in enumerate(lengths)]
    numbers = torch.zeros(1, 4, dtype=torch.int64)
    batch = ForwardBatch(numbers, numbers, numbers[0], KVPool(1), 16, spans)
    assert [len(group.spans) for group in batch.groups] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("queries", "lengths", "window"),
    [(1, [9, 1, 128], None), (1, [4], 2), (2, [3], None), (3, [200, 130], 70), (3, [200], 150)],
)
def test_queries_see_earlier_keys_inside_the_window_and_no_padding(queries, lengths, window):
    biases = causal_bias(queries, lengths, window, torch.device("cpu"))
    assert biases.shape[2] % KEY_BLOCK == 0
    for bias, length in zip(biases, lengths, strict=True):
        for row, position in zip(bias, range(length - queries, length), strict=True):
            first = 0 if window is None else max(0, position - window + 1)
            assert row.eq(0).nonzero().flatten().tolist() == list(range(first, position + 1))
            assert bool(row[row != 0].eq(float("-inf")).all())


def test_slots_follow_the_block_table():
    slots = token_slots([[5, 2], [3], [7, 1, 6]], [7, 2, 8], 8, 4)
    assert slots.tolist() == [
        [20, 21, 22, 23, 8, 9, 10, 20],
        [12, 13, 12, 12, 12, 12, 12, 12],
        [28, 29, 30, 31, 4, 5, 6, 7],
    ]


@pytest.mark.parametrize(
    ("window", "softcap", "sinks"), [(None, None, None), (3, None, None), (None, 2.0, None), (4, 1.5, True)]
)
def test_rows_as_tensors_give_the_results_of_rows_as_spans(window, softcap, sinks):
    """Two groups of padded rows with different bounds. One row is empty, and another one has padding."""
    torch.manual_seed(1)
    sinks = torch.randn(HEADS) if sinks else None
    pools = [KVPool(12 * BLOCK) for _ in range(2)]
    past = torch.randn(2, 12 * BLOCK + 1, KV_HEADS, DIM)
    for pool in pools:
        pool.layer(Layer.layer_idx, past[0, :1], past[1, :1]).copy_(torch.cat([*past], -1))
    # (start on the packed axis, queries, length, blocks); the second row of the first group is empty.
    spans = [(0, 1, 7, [3, 5]), (2, 3, 9, [1, 7, 0]), (5, 2, 2, [4])]
    query, key, value = (torch.randn(1, n, 8, DIM) for n in (HEADS, KV_HEADS, KV_HEADS))
    tokens = [i for start, queries, *_ in spans for i in range(start, start + queries)]
    lists = ForwardBatch(
        ids=torch.zeros(1, len(tokens), dtype=torch.int64),
        positions=torch.zeros(1, len(tokens), dtype=torch.int64),
        variants=torch.zeros(len(tokens), dtype=torch.int64),
        pool=pools[0],
        block_size=BLOCK,
        spans=[
            QuerySpan(sum(q for _, q, *_ in spans[:i]), queries, length, blocks)
            for i, (_, queries, length, blocks) in enumerate(spans)
        ],
    )

    def group(rows, starts, queries, lengths, most):
        table = [blocks + [11] * (3 - len(blocks)) for blocks in rows]
        numbers = [torch.tensor(x, dtype=torch.int32) for x in (table, starts, queries, lengths)]
        return PagedRows(*numbers, BLOCK, most, 12)

    paged = [
        group([[3, 5], [11]], [0, 1], [1, 0], [7, 0], 1),
        group([[1, 7, 0], [4]], [2, 5], [3, 2], [9, 2], 3),
    ]
    tensors = replace(lists, pool=pools[1], spans=(), paged=paged, gathers=True)
    kwargs = {"scaling": 0.3, "sliding_window": window, "softcap": softcap, "s_aux": sinks}
    expected, _ = paged_attention(
        Layer(), query[:, :, tokens], key[:, :, tokens], value[:, :, tokens], None, eft=lists, **kwargs
    )
    out, _ = paged_attention(Layer(), query, key, value, None, eft=tensors, **kwargs)
    torch.testing.assert_close(out[:, tokens], expected)
    assert not out[:, [i for i in range(8) if i not in tokens]].any()
    expected, actual = (pool.layer(Layer.layer_idx, key, value) for pool in pools)
    torch.testing.assert_close(actual[:-1], expected[:-1])
