"""Attention in place: what torch computes in float64, and a query gets the same bits in any company."""

import platform
from dataclasses import replace
from functools import partial

import pytest
import torch

from langchain_eft.engine.attention import in_place
from langchain_eft.engine.attention.gathered import attend_gathered
from langchain_eft.engine.attention.in_place import attend_in_place, attends_in_place
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.kernels.target import Target
from unit_tests.helpers import slow

SHAPES = [
    (9, 3, 64, 64),
    (4, 2, 8, 8),
    (28, 4, 128, 128),
    (8, 1, 256, 256),
    (5, 5, 96, 80),
    (16, 1, 192, 128),
]
"""Query heads, key heads, size of a key and of a value."""

FEATURES = [{}, {"sliding_window": 40}, {"softcap": 20.0}, {"sinks": True}]
LENGTHS = [300, 1, 140]

needs_x86 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="compiles for x86")


class Texts:
    """Texts whose tokens have queries, keys and values, and their memory.

    Args:
        shape: One of SHAPES.
        block_size: Positions per block. The blocks of the texts are mixed.
        features: Keyword arguments of attention.
    """

    def __init__(self, shape, block_size=16, features=None):
        heads, kv_heads, dim, value_dim = shape
        torch.manual_seed(0)
        sizes = ((heads, dim), (kv_heads, dim), (kv_heads, value_dim))
        self.tokens = [[torch.randn(n, *size) for size in sizes] for n in LENGTHS]
        self.features = {"scaling": 2 * dim**-0.5, **(features or {})}
        if "sinks" in self.features:
            self.features["sinks"] = torch.randn(heads)
        counts = [-(-n // block_size) for n in LENGTHS]
        self.tables = torch.randperm(sum(counts)).split(counts)
        self.block_size, self.value_dim = block_size, value_dim
        _, keys, values = self.tokens[0]
        pool = KVPool(sum(counts) * block_size)
        self.memory = pool.layer(0, keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
        self.memory.fill_(torch.nan)  # what other requests may have left

    def rows(self, texts, counts, ends):
        width = max(map(len, self.tables))
        table = [[*self.tables[i].tolist(), *[0] * (width - len(self.tables[i]))] for i in texts]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        numbers = [torch.tensor(x, dtype=torch.int32) for x in (table, starts, counts, ends)]
        return PagedRows(*numbers, self.block_size, max(counts), max(ends))

    def attended(self, texts, counts, ends, attend=attend_in_place):
        """What the last `counts` tokens before `ends` of some texts get, each [count, heads, value_dim]."""
        parts = [
            [x[end - n : end] for x in self.tokens[i]] for i, n, end in zip(texts, counts, ends, strict=True)
        ]
        query, keys, values = map(torch.cat, zip(*parts, strict=True))
        out = torch.full((*query.shape[:2], self.value_dim), torch.nan)
        attend(query, keys, values, self.memory, [self.rows(texts, counts, ends)], out, **self.features)
        return out.split(counts)

    def all_at_once(self):
        return self.attended([*range(len(LENGTHS))], LENGTHS, LENGTHS)

    def in_chunks(self, *sizes):
        """The results in chunks of these sizes, one after another; texts that have ended are left out."""
        done, parts = [0] * len(LENGTHS), [[] for _ in LENGTHS]
        while texts := [i for i, n in enumerate(LENGTHS) if done[i] < n]:
            counts = [min(sizes[(i + sum(done)) % len(sizes)], LENGTHS[i] - done[i]) for i in texts]
            for i, count in zip(texts, counts, strict=True):
                done[i] += count
            for i, part in zip(texts, self.attended(texts, counts, [done[i] for i in texts]), strict=True):
                parts[i].append(part)
        return [*map(torch.cat, parts)]


def defined(query, keys, values, scaling, sliding_window=None, softcap=None, sinks=None):
    """[n, heads, value_dim] attention of a whole text in float64, from the definitions."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = (x.double().repeat_interleave(groups, 1) for x in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys) * scaling
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    positions = torch.arange(len(query))
    visible = positions <= positions[:, None]
    if sliding_window:
        visible &= positions > positions[:, None] - sliding_window
    weights = scores.masked_fill(~visible, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.double().exp()[:, None, None]
    return torch.einsum("hqk,khd->qhd", weights / total, values)


def equal(actual, expected):
    return all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_definition_in_float64(shape, features):
    texts = Texts(shape, features=features)
    for tokens, actual in zip(texts.tokens, texts.all_at_once(), strict=True):
        expected = defined(*tokens, **texts.features)
        error = (actual - expected).abs().max() / expected.abs().max()
        assert error < 3e-6


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_gets_the_same_alone_in_company_and_in_any_chunk(shape, features):
    texts = Texts(shape, features=features)
    whole = texts.all_at_once()
    for sizes in ((64,), (7, 1, 30, 2)):
        texts.memory.fill_(torch.nan)
        assert equal(texts.in_chunks(*sizes), whole), sizes
    for text, position in ((0, 299), (0, 128), (0, 127), (0, 3), (1, 0), (2, 100)):
        (alone,) = texts.attended([text], [1], [position + 1])
        assert torch.equal(alone[0], whole[text][position]), (text, position)


@pytest.mark.parametrize("block_size", [1, 4, 24, *slow(5, 16, 64)])
def test_a_query_gets_the_same_in_blocks_of_any_size(block_size):
    features = {"sliding_window": 200}
    whole = Texts(SHAPES[0], 32, features).all_at_once()
    assert equal(Texts(SHAPES[0], block_size, features).in_chunks(50, 3), whole)


@needs_x86
@pytest.mark.parametrize("features", FEATURES)
def test_a_query_gets_the_same_on_a_processor_with_fewer_registers(features, monkeypatch):
    expected = Texts(SHAPES[0], features=features).all_at_once()
    monkeypatch.setattr(in_place, "_kernel", partial(in_place._kernel, target=Target("x86-64-v3")))
    assert equal(Texts(SHAPES[0], features=features).in_chunks(64, 1), expected)


def test_texts_may_share_blocks():
    """Two rows whose beginning one of them has stored get what they get alone."""
    texts = Texts(SHAPES[0], 32)
    texts.tokens[2] = [
        torch.cat([x[:128], y[128:]]) for x, y in zip(texts.tokens[0], texts.tokens[2], strict=True)
    ]
    first, _, second = texts.all_at_once()
    texts.memory.fill_(torch.nan)
    texts.attended([0], [128], [128])
    tables = texts.tables
    texts.tables = (tables[0], tables[1], torch.cat([tables[0][:4], tables[2][4:]]))
    assert equal(texts.attended([0, 2], [172, 12], [300, 140]), [first[128:], second[128:]])


def test_a_row_sees_what_another_row_of_the_pass_stores():
    texts = Texts(SHAPES[0])
    whole = texts.all_at_once()
    texts.memory.fill_(torch.nan)
    assert equal(texts.attended([0, 0], [10, 290], [300, 290]), [whole[0][290:], whole[0][:290]])


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("starts", [True, False])
def test_padded_rows_equal_those_of_torch(features, starts):
    """One row does not exist, others have fewer queries than there is room for."""
    outs = []
    for attend in (attend_in_place, attend_gathered):
        texts = Texts(SHAPES[0], 4, features)
        texts.memory.zero_()
        texts.attended([0, 2], [299, 137], [299, 137], attend)
        rows = texts.rows([0, 1, 2], [1, 0, 3], [300, 0, 140])
        places = torch.tensor([0, 4, 8], dtype=torch.int32) if starts else None
        rows = replace(rows, starts=places, max_queries=4)
        states = [
            torch.randn(12, *x.shape[1:], generator=torch.Generator().manual_seed(1)) for x in texts.tokens[0]
        ]
        out = torch.full((12, 9, 64), 7.0)
        attend(*states, texts.memory, [rows], out, **texts.features)
        outs.append(out)
    torch.testing.assert_close(*outs)
    assert bool((outs[0][4:8] == (7 if starts else 0)).all())


def test_no_number_gives_no_number():
    """What fails in a row must show, whatever becomes of maxima of NaN."""
    texts = Texts(SHAPES[0])
    texts.tokens[0][0][10] = torch.nan
    result, *_ = texts.all_at_once()
    assert result[10].isnan().all()
    assert not result[[9, 11]].isnan().any()


def test_other_types_and_processes_without_numba_are_left_to_torch(monkeypatch):
    query = torch.zeros(1, 9, 64)
    assert attends_in_place(query)
    assert not attends_in_place(query.bfloat16())
    assert not attends_in_place(query.to("meta"))
    monkeypatch.setattr(in_place, "can_compile", lambda: False)
    assert not attends_in_place(query)


@pytest.mark.parametrize("threads", [2, 3])
def test_a_query_gets_the_same_with_any_number_of_threads(threads, monkeypatch):
    texts = Texts(SHAPES[2])
    expected = texts.all_at_once()
    monkeypatch.setattr(in_place.torch, "get_num_threads", lambda: threads)
    for _ in range(5):
        texts.memory.fill_(torch.nan)
        assert equal(texts.in_chunks(64, 3), expected)
