"""Layouts of small models, by hand on models of round numbers."""

import pytest

from benchmarks.small_model_layouts import CONTEXT, apart, copied, divided, gathered_apart
from langchain_eft.diagnostics.plan import reduce_seconds, step_time
from unit_tests.diagnostics.plan.shapes import cluster, model

PAIR = [model(), model("reference", layers=4), model("tuned", layers=4)]


def passes(time):
    return time.products + time.attention + time.layers + time.reduces


def test_divided_models_are_those_of_the_plan():
    assert divided(PAIR, cluster(4), 8) == step_time(PAIR, cluster(4), 8, CONTEXT).seconds


def test_a_gather_for_every_model_adds_one_for_each_small_model():
    more = gathered_apart(PAIR, cluster(4), 8) - divided(PAIR, cluster(4), 8)
    assert more == pytest.approx(2 * reduce_seconds(cluster(4), 8 * 10_000 * 2))


def test_copies_are_read_whole_and_reduce_nothing():
    small = step_time(PAIR[1:], cluster(1), 8, CONTEXT)
    base = step_time(PAIR[:1], cluster(4), 8, CONTEXT)
    assert small.reduces == 0
    assert copied(PAIR, cluster(4), 8) == pytest.approx(base.seconds + passes(small))


def test_a_card_of_their_own_costs_only_what_is_longer_than_the_base():
    base = step_time(PAIR[:1], cluster(4), 8, CONTEXT)
    small = step_time(PAIR[1:], cluster(1), 8, CONTEXT)
    assert passes(small) > passes(base), "two models on one card, against one on four"
    logits = reduce_seconds(cluster(2), 8 * 10_000 * 4)
    assert apart(PAIR, cluster(4), 8) == pytest.approx(passes(small) + base.logits + base.host + logits)
