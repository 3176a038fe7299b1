"""Convolutions over packed rows against torch's own over whole texts."""

from itertools import zip_longest

import pytest
import torch

from langchain_eft.engine.recurrence.convolution import convolve
from langchain_eft.engine.recurrence.state_pool import StatePool
from unit_tests.engine.recurrence.packed import batch, passes

CHANNELS = 12


@pytest.mark.parametrize("width", [2, 4])
def test_texts_in_passes_of_any_size_equal_a_convolution_of_the_whole(width):
    torch.manual_seed(0)
    texts, weight = [torch.randn(n, CHANNELS) for n in (70, 3, 40)], torch.randn(CHANNELS, width)
    rng, pool = torch.Generator().manual_seed(1), StatePool(3)
    results = [torch.zeros_like(text) for text in texts]
    for group in zip_longest(*(passes(len(text), rng) for text in texts)):
        live = [(slot, taken) for slot, taken in enumerate(group) if taken]
        packed = torch.cat([texts[slot][at : at + count] for slot, (at, count, _) in live])
        rows = batch(pool, [slot for slot, _ in live], [taken for _, taken in live])
        out = convolve(packed, weight, rows, 0).split([count for _, (_, count, _) in live])
        for (slot, (at, count, _)), result in zip(live, out, strict=True):
            results[slot][at : at + count] = result
    for text, result in zip(texts, results, strict=True):
        padded = torch.nn.functional.pad(text.t()[None], (width - 1, 0))
        expected = torch.nn.functional.conv1d(padded, weight[:, None], groups=CHANNELS)[0].t()
        assert (result - expected).abs().max() < 1e-5
