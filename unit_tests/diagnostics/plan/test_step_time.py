"""Steps by hand, with assumptions of round numbers."""

import pytest

from langchain_eft.diagnostics.plan import Assumptions, prompt_seconds, step_time
from langchain_eft.diagnostics.plan.step_time import reduce_seconds
from unit_tests.diagnostics.plan.shapes import cluster, model

ROUND = Assumptions(
    bandwidth_efficiency=0.5, compute_efficiency=0.5, seconds_per_layer=1e-5, seconds_per_adapter_layer=2e-6,
    seconds_per_step=1e-3, reduce_seconds=1e-5, network_reduce_seconds=1e-4, link_efficiency=0.25,
    network_bytes_per_second=1e10,
)  # fmt: skip


def test_a_step_of_one_request_on_one_card():
    time = step_time([model()], cluster(1), 1, 100, assumptions=ROUND)
    assert time.products == pytest.approx(220e6 / 5e11)  # the weights read, at half of 1 TB/s
    assert time.attention == pytest.approx(100 * 8000 / 5e11)
    assert time.layers == pytest.approx(10 * 1e-5)
    assert time.reduces == 0
    assert time.logits == pytest.approx(5 * 10_000 * 4 / 5e11)  # the sampler alone: nothing to combine
    assert time.host == 1e-3
    parts = (time.products, time.attention, time.layers, time.logits, time.host)
    assert time.seconds == pytest.approx(sum(parts))


def test_many_requests_are_bound_by_arithmetic():
    time = step_time([model()], cluster(1), 1000, 100, assumptions=ROUND)
    assert time.products == pytest.approx(2 * 110e6 * 1000 / 5e13)
    fp8 = step_time([model(base_format="fp8")], cluster(1), 1000, 100, assumptions=ROUND)
    assert fp8.products == pytest.approx(time.products / 2)
    int4 = step_time([model(base_format="int4")], cluster(1), 1000, 100, assumptions=ROUND)
    assert int4.products == pytest.approx(time.products), "int4 weights are multiplied in bfloat16"


def test_four_cards_read_a_quarter_each_and_reduce_twice_a_layer():
    time = step_time([model()], cluster(4), 8, 100, assumptions=ROUND)
    assert time.products == pytest.approx(55e6 / 5e11)
    assert time.attention == pytest.approx(8 * 100 * 2000 / 5e11)
    reduce = 1e-5 + 2 * 3 / 4 * 8 * 1000 * 2 / 1e11
    assert time.reduces == pytest.approx(21 * reduce)
    gather = 1e-5 + 3 / 4 * 8 * 10_000 * 4 / 1e11
    assert time.logits == pytest.approx(gather + 5 * 8 * 10_000 * 4 / 5e11)


def test_every_token_runs_every_model():
    pair = [model(), model("reference of chat", layers=4), model("tuned chat", layers=4)]
    both, alone = (step_time(models, cluster(2), 8, 100, assumptions=ROUND) for models in (pair, pair[:1]))
    assert both.products == pytest.approx(3 * alone.products)
    assert both.attention == pytest.approx(3 * alone.attention)
    assert both.layers == pytest.approx(1.8 * alone.layers)
    combine = 8 * 10_000 / 2 * (3 * 2 + 4) / 5e11
    assert both.logits == pytest.approx(alone.logits + combine), "one gather, however many models"
    assert both.host == alone.host


def test_two_nodes_reduce_over_the_network():
    assert reduce_seconds(cluster(1), 1e6, ROUND) == 0
    assert reduce_seconds(cluster(8), 1e6, ROUND) == pytest.approx(1e-5 + 2 * 7 / 8 * 1e6 / 1e11)
    assert reduce_seconds(cluster(16), 1e6, ROUND) == pytest.approx(1e-4 + 2 * 15 / 16 * 1e6 / 1e10)


def test_a_prompt_is_read_by_every_model():
    seconds = prompt_seconds([model(), model("tuned", layers=5)], cluster(1), 1000, ROUND)
    assert seconds == pytest.approx(2 * 2 * 110e6 * 1000 / 5e13 + 15e-5)


def test_keys_and_values_in_fp8_are_read_in_half_the_time():
    full, half = (step_time([model()], cluster(1), 4, 500, size, ROUND) for size in (2, 1))
    assert half.attention == pytest.approx(full.attention / 2)
    assert half.products == full.products


def test_adapters_are_rows_of_one_pass():
    adapted = [model(), model("reference", adapters={"one": 10**6, "two": 10**6})]
    merged = [model(), *(model(role) for role in ("reference", "tuned one", "tuned two"))]
    rows, copies = (step_time(models, cluster(1), 1, 100, assumptions=ROUND) for models in (adapted, merged))
    assert rows.products == pytest.approx((2 * 220e6 + 4e6) / 5e11)
    assert copies.products == pytest.approx(4 * 220e6 / 5e11)
    assert rows.attention == copies.attention
    assert rows.layers == pytest.approx(10 * (2 * 1e-5 + 2 * 2e-6))
    assert rows.logits == copies.logits
    many = step_time(adapted[1:], cluster(1), 1000, 100, assumptions=ROUND)
    assert many.products == pytest.approx(3 * 2 * 110e6 * 1000 / 5e13), "but each row is computed"
