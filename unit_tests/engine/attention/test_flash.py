"""Flash attention on a CPU: what `sdpa.attend` computes, whatever is computed beside it."""

from itertools import product

import pytest
import torch

from langchain_eft.engine.attention import flash
from langchain_eft.engine.attention.flash import KEY_STEP, flash_attend, flash_bias
from langchain_eft.engine.attention.sdpa import KEY_BLOCK, attend, causal_bias, padded_length
from unit_tests.helpers import slow

CPU = torch.device("cpu")
FEATURES = [{}, {"window": 40}, {"window": 200}, {"sinks": True}]
SHAPES = [(9, 3), (1, 1), (4, 4), (32, 8), (8, 1), (28, 4)]
DIMS = [64, 80, 96, 128, 256]


def kinds():
    """Shapes, head sizes and features: `make test` has every pair of them, `make test-full` all three."""
    for places in product(*map(range, map(len, (SHAPES, DIMS, FEATURES)))):
        marks = [pytest.mark.slow] if any(places) else []
        marks += [pytest.mark.full] if sum(places) % len(FEATURES) else []
        shape, dim, features = places
        yield pytest.param(SHAPES[shape], DIMS[dim], FEATURES[features], marks=marks)


def sequence(heads, kv_heads, dim, length=1200, seed=0):
    """Queries, keys and values of a whole sequence, [heads, length, dim]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, length, dim, generator=generator) for n in (heads, kv_heads, kv_heads)]


def inputs(query, keys, values, queries, length, window=None):
    """The last queries of the first `length` positions, their context with padding, and their bias."""
    padding = padded_length(length) - length
    memory = torch.cat([keys, values], -1)[:, :length]
    memory = torch.cat([memory, torch.randn(len(memory), padding, memory.shape[-1])], 1)
    context = memory.unflatten(1, (-1, KEY_BLOCK)).transpose(0, 1)
    return (
        query[:, length - queries : length].transpose(0, 1),
        context,
        causal_bias(queries, [length], window, CPU)[0],
    )


def attended(query, keys, values, queries, length, sinks=None, window=None):
    """[Q, heads, dim] for the last queries of the first `length` positions; other numbers pad the keys."""
    rows, context, bias = inputs(query, keys, values, queries, length, window)
    bias = flash_bias(bias[None], len(query) // len(keys))
    return flash_attend(rows[None], context, bias, rows.shape[-1] ** -0.5, sinks)[0]


@pytest.mark.parametrize("features", [FEATURES[0], *slow(*FEATURES[1:])])
@pytest.mark.parametrize(("queries", "length"), [(1, 1), (1, 130), (5, 128), (33, 300), (64, 1000)])
def test_it_equals_attention_in_single_steps(queries, length, features):
    features = {**features, "sinks": torch.randn(9)} if "sinks" in features else features
    data = sequence(9, 3, 64)
    rows, context, bias = inputs(*data, queries, length, features.get("window"))
    keys, values = context.transpose(0, 1).flatten(1, 2).chunk(2, -1)
    expected = attend(rows.transpose(0, 1), keys, values, bias, 0.125, sinks=features.get("sinks"))
    actual = attended(*data, queries, length, **features)
    torch.testing.assert_close(actual, expected.transpose(0, 1), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("shape", "dim", "features"), [*kinds()])
def test_a_query_gets_the_same_alone_and_in_any_chunk(shape, dim, features):
    """Bit for bit, for chunks before and behind the position."""
    features = {**features, "sinks": torch.randn(shape[0])} if "sinks" in features else features
    data = sequence(*shape, dim)
    for position in (0, 3, 31, 127, 128, 300, 511, 1000):
        alone = attended(*data, 1, position + 1, **features)[0]
        for queries, behind in ((2, 0), (2, 1), (3, 1), (5, 4), (9, 3), (11, 0), (17, 7), (33, 32), (64, 20)):
            if behind < queries <= position + 1 + behind:
                chunk = attended(*data, queries, position + 1 + behind, **features)
                assert torch.equal(chunk[queries - 1 - behind], alone), (position, queries, behind)


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("kind", [{}, {"sinks": torch.linspace(-1, 1, 9)}])
@pytest.mark.parametrize("num_shared", [1, 3])
def test_rows_that_begin_alike_get_the_same_if_that_is_read_once(queries, kind, num_shared):
    first, *others = (sequence(9, 3, 64, 512, seed) for seed in range(4))
    for other in others:
        for x, y in zip(first[1:], other[1:], strict=True):
            y[:, : num_shared * KEY_BLOCK] = x[:, : num_shared * KEY_BLOCK]
    data = [inputs(*each, queries, 480) for each in (first, *others)]
    query, context, bias = (torch.stack(x) for x in zip(*data, strict=True))
    expected = flash_attend(query, context.flatten(0, 1), flash_bias(bias, 3), 0.1, **kind)
    own = context[:, num_shared:].flatten(0, 1)
    own_bias = flash_bias(bias[..., num_shared * KEY_BLOCK :], 3)
    actual = flash_attend(query, own, own_bias, 0.1, shared=context[0, :num_shared], **kind)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("queries", [1, 3])
def test_a_row_gets_the_same_beside_other_rows(queries):
    data = [inputs(*sequence(9, 3, 64, seed=seed), queries, 250) for seed in range(4)]
    query, context, bias = (torch.stack(x) for x in zip(*data, strict=True))
    together = flash_attend(query, context.flatten(0, 1), flash_bias(bias, 3), 0.1)
    for alone, (query, context, bias) in zip(together, data, strict=True):
        assert torch.equal(alone, flash_attend(query[None], context, flash_bias(bias[None], 3), 0.1)[0])


@pytest.mark.parametrize("shape", [SHAPES[0], *slow(*SHAPES[1:])])
@pytest.mark.parametrize("dim", [DIMS[0], *slow(*DIMS[1:])])
def test_hidden_keys_at_the_end_of_a_segment_change_nothing(shape, dim):
    for queries, length in ((1, 1), (1, 33), (2, 50), (5, 64), (12, 90), (64, 70)):
        rows, context, bias = inputs(*sequence(*shape, dim, 128), queries, length)
        whole, *shorter = (
            flash_attend(
                rows[None], context[:, :, :keys], flash_bias(bias[None, :, :keys], shape[0] // shape[1]), 0.1
            )
            for keys in range(KEY_BLOCK, length - 1, -KEY_STEP)
        )
        assert all(torch.equal(whole, each) for each in shorter)


def test_kinds_that_it_does_not_compute_exactly_are_left_to_others():
    query = torch.zeros(1, 9, 64)
    assert flash.takes(query, 64, None)
    assert not flash.takes(query, 64, 50.0)
    assert not flash.takes(query, 128, None)
    assert not flash.takes(query.bfloat16(), 64, None)
    assert not flash.takes(query[..., :32], 32, None), "these depend on the number of queries"
