"""The results of a query do not depend on what is computed beside it."""

import pytest
import torch

from langchain_eft.engine.attention.sdpa import attend, causal_bias, padded_length
from unit_tests.helpers import slow

DIM = 64


def row(heads, kv_heads, length, seed=0):
    """Queries, keys and values of a whole sequence."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, length, DIM, generator=generator) for n in (heads, kv_heads, kv_heads)]


def attended(query, keys, values, queries, length, **features):
    """What the last queries of the first `length` positions get; other numbers pad the keys."""
    padding = padded_length(length) - length
    keys, values = (torch.cat([x[:, :length], torch.randn(len(x), padding, DIM)], 1) for x in (keys, values))
    bias = causal_bias(queries, [length], features.pop("window", None), query.device)[0]
    return attend(query[:, length - queries : length], keys, values, bias, DIM**-0.5, **features)


@pytest.mark.parametrize("kv_heads", [3, *slow(1, 9)])
@pytest.mark.parametrize("groups", [3, *slow(1, 4)])
@pytest.mark.parametrize("features", [{}, *slow({"window": 40}, {"softcap": 3.0}, {"sinks": True})])
def test_a_query_gets_the_same_alone_and_in_any_chunk(groups, kv_heads, features):
    """Bit for bit, in float32, for chunks before and behind the position."""
    heads = groups * kv_heads
    if "sinks" in features:
        features = {"sinks": torch.randn(heads)}
    data = row(heads, kv_heads, 700)
    for position in (0, 3, 31, 127, 128, 300, 511):
        alone = attended(*data, 1, position + 1, **features)[:, 0]
        for queries, behind in ((2, 0), (2, 1), (3, 1), (5, 0), (5, 4), (9, 3), (17, 7), (32, 30), (64, 20)):
            if behind < queries <= position + 1 + behind:
                chunk = attended(*data, queries, position + 1 + behind, **features)
                assert torch.equal(chunk[:, queries - 1 - behind], alone), (position, queries, behind)


def test_a_row_gets_the_same_beside_other_rows():
    data = [row(9, 3, 256, seed) for seed in range(4)]
    bias = causal_bias(3, [250], None, torch.device("cpu"))[0]
    query, keys, values = (torch.stack(x) for x in zip(*data, strict=True))
    together = attend(query[:, :, 247:250], keys, values, bias, 0.1)
    for alone, (query, keys, values) in zip(together, data, strict=True):
        assert torch.equal(alone, attend(query[:, 247:250], keys, values, bias, 0.1))
