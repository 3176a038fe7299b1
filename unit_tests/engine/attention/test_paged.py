"""Attention over paged KV against dense attention, for every feature that models use."""

import pytest
import torch

from langchain_eft.engine.attention import paged
from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan, paged_rows
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import paged_attention
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


@pytest.mark.parametrize("in_place", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize(
    ("window", "softcap", "sinks"),
    [(None, None, None), (3, None, None), (None, 2.0, None), (5, 1.5, None), (4, None, True)],
)
def test_ragged_chunks_equal_dense_attention(window, softcap, sinks, in_place, monkeypatch):
    monkeypatch.setattr(paged, "attends_in_place", lambda query: in_place)
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
            variants=torch.zeros(start, dtype=torch.int64),
            pool=pool,
            block_size=BLOCK,
            paged=paged_rows([span for _, span in rows], BLOCK, torch.device("cpu")),
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
