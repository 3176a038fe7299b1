"""Sizes of a divided model, by hand: 100 million linear and 20 million other weights, 110 million read."""

from dataclasses import replace

import pytest

from langchain_eft.engine.loading.memory import WeightCount
from unit_tests.diagnostics.plan.shapes import model


def test_weights_are_divided_among_the_cards():
    assert model().nbytes(1) == 240_000_000
    assert model().nbytes(4) == 60_000_000
    assert model().bytes_read(1) == 220_000_000
    assert model().precision == "bfloat16"


@pytest.mark.parametrize(("base_format", "linear"), [("fp8", 100e6), ("int8", 100e6), ("int4", 51_953_125)])
def test_only_linear_layers_are_quantized(base_format, linear):
    quantized = model(base_format=base_format)
    assert quantized.nbytes(1) == linear + 40e6
    assert quantized.bytes_read(2) == (linear + 20e6) / 2
    assert quantized.precision == base_format


def test_a_stored_size_counts_as_it_is():
    stored = replace(model().footprint, weights=WeightCount(10**8, 2 * 10**7, stored=90_000_000))
    assert replace(model(), footprint=stored).nbytes(2) == 45_000_000
    assert replace(model(), footprint=stored).precision == "as stored"


@pytest.mark.parametrize(("cards", "nbytes"), [(1, 8000), (2, 4000), (4, 2000), (8, 2000)])
def test_a_card_has_one_kv_head_at_least(cards, nbytes):
    assert model().kv_bytes(cards) == nbytes
    assert model().kv_bytes(cards, itemsize=1) == nbytes // 2


def test_adapters_share_weights_and_have_keys_and_values_of_their_own():
    adapted = model("reference", adapters={"one": 1_000_000, "two": 2_000_000})
    assert adapted.rows == 3
    assert adapted.nbytes(4) == model().nbytes(4)
    assert adapted.bytes_read(4) == 55_000_000 + 2 * 3_000_000, "every card holds whole adapters"
    assert adapted.kv_bytes(2) == 3 * 4000


def test_its_heads_are_those_of_its_configuration():
    heads = model(heads=14, kv_heads=2).heads
    assert (heads.query, heads.key_value) == (14, 2)
