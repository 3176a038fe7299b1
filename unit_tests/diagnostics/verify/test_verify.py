"""Verification of a tiny family: a right engine passes, and a wrong one fails."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from rich.text import Text
from scipy import stats
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.cli.verify import verification_summary, verification_table
from langchain_eft.diagnostics.decoded_answer import decode_in_batches
from langchain_eft.diagnostics.verify import verify as verification
from langchain_eft.diagnostics.verify.plan import (
    ALPHA,
    FIRST_TOKEN_SAMPLINGS,
    GREEDY_SPECULATIONS,
    SAMPLINGS,
    TESTS,
    VerificationPlan,
    describe,
    encode_prompts,
)
from langchain_eft.diagnostics.verify.reference import Reference, distribution
from langchain_eft.diagnostics.verify.report import Check, VerificationReport
from langchain_eft.diagnostics.verify.statistics import chi_squared_test, log_p_excess, z_test
from langchain_eft.diagnostics.verify.verify import (
    greedy_checks,
    sampling_checks,
    verify,
)
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.decoding import distributions
from langchain_eft.engine.decoding.sampling import Sampling, probabilities
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.progress import silent
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.registry import close_all
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds import sampler
from unit_tests.helpers import GREEDY, engine_with, failing_rounds, keep_every_draft_token

SETTINGS = [
    ({}, 1.0, 1.0),
    ({"one": 0.5, "two": 1.5}, 1.0, 1.0),
    ({"full": 1.0, "two": 0.7}, 1.0, 1.0),
    ({"two": 1.0}, 0.0, 1.0),
    ({"one": 0.5, "two": 0.5}, 1.5, 0.9),
    ({}, 1.3, 0.8),
]
FILTERS = [
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_p=0.9),
    SamplingParams(temperature=1.3, top_k=7),
    SamplingParams(temperature=1.5, top_k=20, top_p=0.8, min_p=0.1),
    SamplingParams(top_k=5000),
]


@pytest.fixture
def brief(monkeypatch):
    """Use fewer draft lengths, batches and first tokens, for tests that are not about them."""
    monkeypatch.setattr(verification, "BATCH_SIZES", (8,))
    monkeypatch.setattr(verification, "GREEDY_SPECULATIONS", ("off", 2))
    monkeypatch.setattr(verification, "SAMPLED_SPECULATIONS", (4,))
    monkeypatch.setattr(verification, "FIRST_TOKENS_PER_SAMPLE", 15)


def planned(engine, mixture, strength=1.0, top_p=1.0, **thoroughness):
    mixture = Mixture.of(mixture)
    prompts = encode_prompts(engine.tokenizer, engine.recipe, mixture, ["How do whales sleep?", "Hi"])
    return VerificationPlan(prompts, mixture, strength, top_p, **{"max_tokens": 5, **thoroughness})


def outcomes(checks):
    return {check.outcome for check in checks}


# The definition of the formula


@pytest.mark.parametrize(("mixture", "strength", "top_p"), SETTINGS)
def test_the_reference_is_the_formula(engine, reference, mixture, strength, top_p):
    plan = planned(engine, mixture, strength, top_p)
    ids = next(iter(plan.prompts))
    log_p = Reference(engine.family, plan).log_p(ids[:-2], ids[-2:])
    expected = [reference.logprobs(ids[: len(ids) - i], mixture, strength, top_p) for i in (2, 1, 0)]
    torch.testing.assert_close(log_p, torch.stack(expected), atol=1e-4, rtol=1e-5)


def test_tokens_outside_the_common_vocabulary_have_probability_0(engine, monkeypatch):
    allowed = engine.family.vocabulary.clone()
    allowed[7] = False
    monkeypatch.setitem(engine.family.__dict__, "vocabulary", allowed)
    plan = planned(engine, {"one": 1.0})
    p = Reference(engine.family, plan).log_p(next(iter(plan.prompts)), ()).exp()
    assert p[0, 7] == 0
    assert float(p.sum()) == pytest.approx(1)


@pytest.mark.parametrize("params", FILTERS, ids=describe)
def test_filters_are_those_of_the_sampler(params):
    logits = 2 * torch.randn(50, 260, generator=torch.Generator().manual_seed(0))
    filtered = distribution(logits.double().log_softmax(-1), params)
    sampling = Sampling.of([params] * 50, [0] * 50, logits.device)
    torch.testing.assert_close(filtered, probabilities(logits, sampling), atol=1e-6, rtol=1e-4)


def test_prompts_take_the_chat_template_where_there_is_one(engine):
    class Plain:
        chat_template = None

        def __call__(self, text):
            return engine.tokenizer(text)

    (chat,), (plain,) = (
        encode_prompts(tokenizer, engine.recipe, Mixture(), ["Hi"])
        for tokenizer in (engine.tokenizer, Plain())
    )
    assert engine.tokenizer.decode(chat) == "<user> Hi <end> <assistant> "
    assert engine.tokenizer.decode(plain) == "Hi"


# The statistical tests


@pytest.mark.parametrize("params", FILTERS, ids=describe)
def test_the_excess_is_0_on_average_and_its_variance_is_right(params):
    log_p = torch.randn(1, 30, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)
    p = distribution(log_p, params)[0]
    excesses = [log_p_excess(log_p, [token], params) for token in range(30)]
    values = torch.tensor([value for value, _ in excesses], dtype=torch.float64)
    assert float((p * values).sum()) == pytest.approx(0, abs=1e-12)
    assert excesses[0][1] == pytest.approx(float((p * values**2).sum()))
    kept = p > 0
    torch.testing.assert_close(
        values[kept], p[kept].log() - (p[kept] * p[kept].log()).sum(), atol=1e-9, rtol=1e-9
    )


def test_z_adds_up_sums_and_their_variances():
    z, p_value = z_test([(3.0, 2.0), (1.0, 2.0)])
    assert (z, p_value) == (2.0, pytest.approx(2 * stats.norm.sf(2.0)))
    assert z_test([(0.0, 0.0)]) == (0.0, 1.0)


def test_chi_squared_is_pearsons_over_common_outcomes_and_one_bin_of_rare_ones():
    expected = torch.tensor([30.0, 2.0, 50.0, 3.0, 15.0], dtype=torch.float64)
    counts = torch.tensor([25, 5, 50, 4, 16])
    result = chi_squared_test(counts, expected)
    scipy = stats.chisquare([25, 50, 16, 9], [30, 50, 15, 5])
    assert result == pytest.approx((scipy.statistic, 3, scipy.pvalue))


def test_chi_squared_adds_too_few_rare_outcomes_to_the_last_common_one():
    expected = torch.tensor([70.0, 1.0, 29.0], dtype=torch.float64)
    result = chi_squared_test(torch.tensor([60, 4, 36]), expected)
    scipy = stats.chisquare([60, 40], [70, 30])
    assert result == pytest.approx((scipy.statistic, 1, scipy.pvalue))


def test_chi_squared_tolerates_rounding_and_larger_errors_fail():
    expected = torch.tensor([5000.0, 3000.0, 2000.0], dtype=torch.float64)
    rounded = torch.tensor([5200, 2950, 1850])  # by 5 % on average
    assert chi_squared_test(rounded, expected)[2] < 1e-4
    assert chi_squared_test(rounded, expected, rounding=0.05)[2] > 0.1
    assert chi_squared_test(torch.tensor([6000, 2500, 1500]), expected, rounding=0.05)[2] < 1e-4


@pytest.mark.parametrize("expected", [[100.0, 0.0], [97.0, 3.0], [1.0, 2.0]])
def test_chi_squared_of_a_single_bin_always_passes(expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    assert chi_squared_test(expected.long(), expected) == (0.0, 0, 1.0)


# The checks


@pytest.mark.full
def test_a_right_engine_passes(engine):
    report = verify(engine, planned(engine, {"one": 0.5, "two": 1.5}), silent)
    assert report.passed
    assert report.exact
    assert outcomes(report.checks) == {"passed"}
    assert report.least_p_value == ALPHA / TESTS
    assert sum(check.p_value is not None for check in report.checks) == TESTS
    assert report.tokens == sum(check.tokens for check in report.checks)
    greedy = [check for check in report.checks if check.what == "greedy"]
    assert [(check.speculation, check.batch_size) for check in greedy] == [
        (speculation, batch_size) for speculation in GREEDY_SPECULATIONS for batch_size in (1, 8)
    ]
    drafted = {check.speculation: check.acceptance_rate is not None for check in greedy}
    assert drafted == {"off": False, "auto": drafted["auto"], 1: True, 2: True, 4: True, 8: True}


@pytest.mark.full
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("mixture", "strength", "top_p"), SETTINGS[::2])
def test_every_kind_of_mixture_passes(engine, mixture, strength, top_p):
    report = verify(engine, planned(engine, mixture, strength, top_p), silent)
    assert outcomes(report.checks) == {"passed"}


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_gates_pass(engine):
    mixture = {"one": Gate(below=0.12, otherwise=0.3), "two": Gate(above=4.2, measure="entropy")}
    report = verify(engine, planned(engine, mixture, 1.2, 0.9), silent)
    assert outcomes(report.checks) == {"passed"}


@pytest.mark.usefixtures("brief")
def test_progress_names_every_check(engine):
    messages = []
    reference = Reference(engine.family, planned(engine, {}, max_tokens=1))
    checks = list(greedy_checks(engine, reference, messages.append))
    assert len(messages) == len(checks)
    assert messages[0] == "Greedy answers, speculation off, batch 8"


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_wrong_weight_fails_every_check(family):
    right = distributions.combine

    def without_weights_of_one(logits, index, weights, vocabulary=None):
        return right(logits, index, weights * (weights != 1), vocabulary)

    with engine_with(family, combine=without_weights_of_one) as engine:
        report = verify(engine, planned(engine, {"one": 1.5}), silent)
    assert not report.passed
    assert outcomes(report.checks) == {"failed"}


@pytest.mark.usefixtures("brief")
def test_another_mixture_fails_the_greedy_checks(engine):
    class Other(Reference):
        def log_p(self, prompt, answer):
            plan = replace(self.plan, mixture=Mixture.of({"one": 1.5}))
            return Reference(self.family, plan).log_p(prompt, answer)

    checks = greedy_checks(engine, Other(engine.family, planned(engine, {"one": 1.0})), silent)
    assert outcomes(checks) == {"failed"}


@pytest.mark.usefixtures("brief")
def test_low_precision_is_not_compared_bit_for_bit(family):
    engine = Engine(family.recipe, EngineConfig(dtype="bfloat16", kv_cache_tokens=2048))
    try:
        reference = Reference(engine.family, planned(engine, {"one": 1.0}))
        checks = list(greedy_checks(engine, reference, silent))
        assert not reference.exact
    finally:
        engine.close()
    assert outcomes(checks) == {"not compared bit for bit"}
    assert all(0.5 < check.value <= 1 for check in checks)
    assert VerificationReport(tuple(checks), exact=False, seconds=1.0).passed


def test_an_error_of_the_engine_is_raised(engine):
    plan = planned(engine, {})
    with failing_rounds("out of memory"), pytest.raises(DecodingError, match="out of memory"):
        decode_in_batches(engine, [plan.request(prompt, GREEDY, "off", 4) for prompt in plan.prompts], 2)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_samples_depend_on_the_seed_alone(engine):
    def values(seed):
        plan = planned(engine, {}, seed=seed, max_tokens=2, samples=4)
        checks = sampling_checks(engine, Reference(engine.family, plan), silent)
        return [check.value for check in checks]

    assert values(0) == values(0) != values(1)


# The command


CHECKS = (
    Check("greedy", "off", 1, 72, "equal", 1.0, None, None, "passed"),
    Check("temperature 1", 4, 8, 96, "z", -9.876, 1e-20, 0.625, "failed"),
)


def test_the_table_and_the_summary_show_everything():
    report = VerificationReport(CHECKS, exact=True, seconds=12.3)
    console = Console(width=150)
    with console.capture() as capture:
        console.print(verification_table(report))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines()]
    assert ["greedy", "off", "1", "72", "100.00% equal", "", "", "passed"] in cells
    assert ["temperature 1", "4", "8", "96", "z = -9.88", "1e-20", "62%", "failed"] in cells
    assert verification_summary(report, {"one": 1.0}) == (
        "FAILED in 1 of 2 checks: mixture one=1, 168 tokens compared in 12 s; "
        "p-values fail below 6.7e-06 (0.0001 / 15 tests, Bonferroni)."
    )


@pytest.fixture
def command(family, tmp_path, brief):
    """A function that runs a short `langchain-eft verify` on the tiny family."""
    (tmp_path / "prompts").write_text("How do whales sleep?\nHi\n")
    yield lambda *arguments: CliRunner(env={"COLUMNS": "150"}).invoke(
        app,
        ["verify", "--model", str(family.folder / "base"), "--prompts", str(tmp_path / "prompts"),
         "--max-tokens", "6", *arguments],
    )  # fmt: skip
    close_all()


@pytest.mark.slow
def test_verify_prints_a_table_and_exits_with_0(command, family):
    result = command("--behavior", f"one={family.folder / 'one'}")
    assert result.exit_code == 0, result.stderr
    table = Text.from_ansi(result.stdout).plain
    assert table.splitlines()[-1].startswith("Passed: mixture one=1, ")
    assert table.count("│ passed") == 2 + len(SAMPLINGS) + len(FIRST_TOKEN_SAMPLINGS)
    assert "Greedy answers, speculation 2, batch 8" in result.stderr


@pytest.mark.slow
def test_verify_prints_json_and_exits_with_1_if_a_check_failed(command, family, monkeypatch):
    monkeypatch.setattr(sampler, "accept_or_resample", keep_every_draft_token)
    sources = [f"full={family.folder / 'tuned'}", f"two={family.folder / 'two'}"]
    result = command(
        "--json", "--reference", str(family.folder / "reference"), "--seed", "3",
        *(part for source in sources for part in ("--behavior", source)),
        *("--mix", "full=0.5", "--mix", "two=1", "--upscale-strength", "1.2"),
    )  # fmt: skip
    assert result.exit_code == 1, result.stderr
    report = json.loads(result.stdout)
    assert (report["passed"], report["exact"]) == (False, True)
    assert report["mixture"] == {"full": 0.5, "two": 1.0}
    assert {check["outcome"] for check in report["checks"] if check["what"] == "greedy"} == {"passed"}
    assert {check["outcome"] for check in report["checks"] if check["what"] != "greedy"} == {"failed"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mix", "one"], "NAME=WEIGHT"),
        (["--mix", "three=1"], "'three'"),
        (["--behavior", "one=./nowhere"], "'./nowhere'"),
        (["--behavior", "full=owner/tuned"], "--reference"),
        (["--prompts", "/no/such/file"], "'/no/such/file'"),
        (["--dtype", "int3"], "--dtype 'int3'"),
        (["--max-tokens", "999"], "999"),
    ],
)
def test_bad_input_is_one_line(command, arguments, named):
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert named in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
