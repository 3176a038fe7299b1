"""The GPU benchmark on tiny shapes: it measures everything, and its sizes and rates are right."""

from unit_tests.interpreter import DEVICE  # isort: skip

import json
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import (
    ASSISTED,
    AUTO,
    BASE,
    GENERATE,
    PLAIN,
    PROXY,
    SMALL,
    SMALL_ALONE,
    OurEngine,
    Report,
    engine_log_p,
    plot,
    run,
    table,
)
from benchmarks.gpu_kernels import kernel_checks
from benchmarks.synthetic import BEHAVIOR, TINY, SyntheticFamily, random_prompts

CPU = torch.device("cpu")
SETTING = replace(
    SMALL, batches=(1, 2), contexts=(12,), tokens=6, rival_tokens=4, repetitions=1, rates=(0.8,), lengths=(2,)
)


@pytest.fixture
def synthetic(tmp_path):
    return SyntheticFamily(TINY, tmp_path, CPU, torch.float32, 128).save()


@pytest.mark.full
def test_everything_is_measured(tmp_path):
    path = tmp_path / "report.json"
    report = Report(CPU, path, time.monotonic() + 600)
    run(SETTING, CPU, report)
    assert report.notes == []
    saved = json.loads(path.read_text())
    assert [row["note"] for row in saved["rows"]] == [None] * len(saved["rows"])
    measured = {(row["mode"], row["batch"]) for row in saved["rows"]}
    our_modes = [BASE, PLAIN, "speculative EFT, K=2", AUTO]
    assert measured == {(mode, b) for mode in [*our_modes, PROXY] for b in (1, 2)} | {
        (mode, 1) for mode in (GENERATE, ASSISTED, SMALL_ALONE)
    }
    for row in saved["rows"]:
        assert all(speed > 0 for speed in row["tokens_per_second"])
        if row["mode"] in {BASE, PLAIN, SMALL_ALONE}:
            assert row["tokens_per_round"] == [1.0]
    assert saved["checks"]["same tokens with graphs on and off"] is True
    assert saved["checks"]["z-test of speculative samples"]["p_value"] > 1e-4
    assert "LangChain streaming overhead" in saved["checks"]
    assert {"rounds", "busy"} <= saved["checks"]["profile of tiny"].keys()
    assert all(PROXY in row["ratios"] for row in saved["rows"] if row["mode"] in our_modes)
    assert table(report).count("\n| tiny |") == len(saved["rows"])
    plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_work_without_enough_time_is_noted_and_done_by_the_next_run(tmp_path, monkeypatch):
    path, setting = tmp_path / "report.json", replace(SETTING, batches=(1,))
    report = Report(CPU, path, time.monotonic() - 1)
    run(setting, CPU, report)
    assert report.notes
    assert all(note.endswith("no time left") for note in report.notes)
    assert json.loads(path.read_text())["notes"] == report.notes
    run(setting, CPU, Report(CPU, path, time.monotonic() + 600), ("ours",))
    saved = json.loads(path.read_text())
    assert saved["done"] == ["our_family, tiny", "small_alone, tiny"]
    assert [row["mode"] for row in saved["rows"]] == [BASE, PLAIN, "speculative EFT, K=2", AUTO, SMALL_ALONE]
    monkeypatch.setattr(OurEngine, "run", None)  # nothing is measured again
    saved["done"], later = [], Report(CPU, path, time.monotonic() + 600)
    path.write_text(json.dumps(saved))
    run(setting, CPU, later, ("ours",))
    assert (later.notes, later.summary()["rows"]) == ([], saved["rows"])


@pytest.mark.slow
def test_every_kernel_equals_its_definition():
    checks = dict(kernel_checks(torch.device(DEVICE)))
    assert len(checks) == 5
    for name, work in checks.items():
        assert work()["right"], name


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
def test_draft_tokens_are_accepted_at_the_chosen_rate(synthetic, rate):
    """p and q of full forward passes over random texts overlap by the rate."""
    models = {name: synthetic.module(name, "sdpa") for name in ("base", "tuned", "reference")}
    assert synthetic.set_acceptance(rate) == pytest.approx(rate, abs=0.01)
    ids = torch.tensor(random_prompts(TINY, 4, 60))
    logits = {name: model(ids).logits for name, model in models.items()}
    p = (logits["base"] + logits["tuned"] - logits["reference"]).softmax(-1)
    q = logits["tuned"].softmax(-1)
    assert float(torch.minimum(p, q).sum(-1).mean()) == pytest.approx(rate, abs=0.05)


def test_models_are_the_same_every_time(synthetic):
    first, second = (synthetic.module("base", "sdpa").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bytes_of_a_round(synthetic):
    ours = OurEngine(synthetic, {"kv_cache_tokens": 256})
    try:
        large, small = TINY.large, TINY.small

        def layers(shape):
            head_dim = shape.hidden // shape.heads
            attention = shape.hidden * head_dim * 2 * (shape.heads + shape.key_heads)
            per_layer = attention + 3 * shape.hidden * shape.inner + 2 * shape.hidden
            return shape.layers * per_layer + shape.hidden * (1 + TINY.vocabulary)

        def cached(shape):
            return 2 * shape.layers * shape.key_heads * (shape.hidden // shape.heads)

        base = layers(large) + cached(large) * 2 * 10
        one_small = layers(small) + cached(small) * 2 * 10
        assert ours.bytes_of_round(BASE, 2, 10, 0) == 4 * base
        assert ours.bytes_of_round(PLAIN, 2, 10, 0) == 4 * (base + 2 * one_small)
        assert ours.bytes_of_round(PLAIN, 2, 10, 3) == 4 * (base + 5 * one_small)
    finally:
        ours.close()


def test_log_p_is_the_formula_of_the_models(synthetic):
    ours = OurEngine(synthetic, {"kv_cache_tokens": 256})
    try:
        synthetic.set_acceptance(0.7)
        plain = {name: synthetic.module(name, "sdpa") for name in ("base", "tuned", "reference")}
        prompt, answer = [5, 6, 7], [8, 9]
        logits = {n: m(torch.tensor([[*prompt, *answer[:-1]]])).logits[0, -2:] for n, m in plain.items()}
        expected = logits["base"] + logits["tuned"] - logits["reference"]
        allowed = ours.engine.family.vocabulary
        expected = expected.double().masked_fill(~allowed, -1e9).log_softmax(-1)
        torch.testing.assert_close(engine_log_p(ours.engine, prompt, answer), expected, atol=1e-4, rtol=0)
        assert set(ours.engine.recipe.behaviors) == {BEHAVIOR}
    finally:
        ours.close()
