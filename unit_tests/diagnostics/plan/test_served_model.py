"""Sizes of a divided model, by hand: 100 million linear and 20 million other weights, 110 million read."""

from dataclasses import replace

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.memory import WeightCount
from unit_tests.diagnostics.plan.shapes import cluster, model


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


@pytest.mark.parametrize("cards", [1, 2, 4, 8])
def test_divisors_of_the_heads_are_accepted(cards):
    model().check(cluster(cards))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "cards", "remedy"),
    [(8, 4, 3, "use 1, 2, 4, 8 cards"), (14, 2, 4, "use 1, 2 cards"), (12, 6, 4, "use 1, 2 cards")],
)
def test_other_numbers_of_cards_are_refused_with_those_that_work(heads, kv_heads, cards, remedy):
    small = model("tuned chat", heads=heads, kv_heads=kv_heads)
    with pytest.raises(RecipeError, match=rf"'tuned-chat' \(tuned chat\).*{heads} attention heads.*{remedy}"):
        small.check(cluster(cards))
