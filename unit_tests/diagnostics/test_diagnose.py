"""Diagnoses: verdicts from figures, and the command."""

import json
import math
from dataclasses import replace

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from typer.testing import CliRunner

from langchain_eft import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.cli.diagnose import rows
from langchain_eft.diagnostics.diagnose import DRAFT_LENGTHS, diagnose, tokens_per_round
from langchain_eft.diagnostics.verdict import (
    BaseDistances,
    BaseReferenceAgreement,
    DeltaSize,
    DraftSpeed,
    EndingAgreement,
    Figures,
    Rewards,
    judge,
)

# The prediction


def test_equal_rates_give_the_papers_formula():
    assert tokens_per_round([[0.8] * 50], 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8))
    assert tokens_per_round([[0.5] * 3], 0) == 1


def test_agreement_in_runs_is_worth_more_than_its_mean():
    runs = [[1.0] * 20 + [0.0] * 20]
    assert tokens_per_round(runs, 8) > tokens_per_round([[0.5] * 40], 8)
    assert tokens_per_round([[1.0, 1.0], []], 8) == pytest.approx((3 + 1) / 2)


# The verdict

GOOD = Figures(
    tokens=300,
    agreement=BaseReferenceAgreement(0.4, 0.6, 2.0),
    base_distances=BaseDistances(base_reference=0.46, base_tuned=0.6, tuned_reference=0.38),
    delta=DeltaSize(5.9, 0.7, 3.8, 1.0, 1.7),
    masked=0.0,
    endings=EndingAgreement(0.4, 0.8, 0.8, 1e-3, 0.9, 0.1),
    rewards=Rewards(base=-1.6, eft=4.0, tuned=4.3),
    acceptance=0.7,
    drafts=(DraftSpeed(0, 1.0, 10.0), DraftSpeed(4, 3.0, 15.0)),
)


@pytest.mark.parametrize(
    ("verdict", "reason", "changes"),
    [
        ("transfers", "95%", {}),
        ("vocabularies differ", "20%", {"masked": 0.2}),
        ("base and reference disagree", "0.97", {"base_distances": BaseDistances(0.97, 0.6, 0.5)}),
        ("not a pair", "fine-tuned from", {"base_distances": BaseDistances(0.46, 0.7, 0.6)}),
        (
            "swapped, or the base is tuned already",
            "swapped",
            {"base_distances": BaseDistances(0.61, 0.46, 0.38), "rewards": Rewards(1.6, 3.1, 1.75)},
        ),
        ("hardly any delta", "0.007", {"delta": DeltaSize(0.02, 0.007, 0.0, 2.2, 3.3)}),
        ("not asked for", "prompts that call for it", {"rewards": Rewards(0.5, 0.5, 0.51)}),
        ("does not transfer", "0%", {"rewards": Rewards(0.0, 0.0, 2.0)}),
        ("does not transfer", "-50%", {"rewards": Rewards(0.0, -1.0, 2.0)}),
        ("transfers in part", "50%", {"rewards": Rewards(0.0, 1.0, 2.0)}),
        ("may not stop", "1.0e-06", {"endings": EndingAgreement(0.4, 0.2, 0.8, 1e-6, 0.9, 0.1)}),
    ],
)
def test_each_problem_has_its_verdict_and_reason(verdict, reason, changes):
    judged, sentence = judge("pirate", replace(GOOD, **changes))
    assert judged == verdict
    assert reason in sentence
    assert sentence.count("'pirate'") == 1
    assert sentence.endswith(".")


def test_without_a_gain_no_share_of_it_is_recovered():
    assert math.isnan(Rewards(1.0, 1.0, 1.0).recovered)


# The whole diagnosis


@pytest.fixture(scope="module")
def llm(family):
    llm = EFTChatModel(
        model=str(family.folder / "base"),
        behaviors=family.recipe.behaviors,
        mixture={"one": 1.0, "full": 0.5},
        temperature=1.0,
        seed=1,
        engine_options={"kv_cache_tokens": 4096},
    )
    yield llm
    llm.engine.close()


@pytest.mark.slow
def test_every_behavior_of_the_mixture_is_diagnosed_alone(llm):
    messages = []
    diagnoses = diagnose(llm, ["hi", "who?"], max_tokens=6, progress=messages.append)
    assert [(d.behavior, d.weight) for d in diagnoses] == [("full", 0.5), ("one", 1.0)]
    assert any("one: comparing" in text for text in messages)
    for diagnosis in diagnoses:
        figures = diagnosis.figures
        assert (diagnosis.verdict, diagnosis.sentence) == judge(diagnosis.behavior, figures)
        assert [draft.length for draft in figures.drafts] == [0, *DRAFT_LENGTHS]
        assert figures.drafts[0].tokens_per_round == 1
        assert 1 <= figures.drafts[1].tokens_per_round <= 2
        assert figures.drafts[0].tokens_per_second > 0
        assert 0 < figures.acceptance < 1
        assert json.loads(json.dumps(diagnosis.to_dict()))["figures"]["tokens"] == figures.tokens


def test_a_model_that_is_its_own_reference_has_hardly_any_delta(family):
    same = str(family.folder / "reference")
    llm = EFTChatModel(
        model=str(family.folder / "base"),
        behaviors={"same": {"tuned": same, "reference": same}},
        engine_options={"kv_cache_tokens": 2048},
    )
    (diagnosis,) = diagnose(llm, ["hi"], max_tokens=6, draft_lengths=())
    llm.engine.close()
    assert diagnosis.figures.drafts == ()
    assert diagnosis.figures.delta.total_variation == 0
    assert not diagnosis.transfers


def test_an_empty_mixture_or_prompt_list_is_an_error(llm):
    base = EFTChatModel(**{**llm.model_dump(exclude_unset=True), "mixture": {}})
    with pytest.raises(ModelInvalidRequestError, match="'full', 'one', 'two'"):
        diagnose(base)
    with pytest.raises(ModelInvalidRequestError, match="prompts"):
        diagnose(llm, [])


def test_the_command_prints_a_table_or_json_and_fails_with_the_verdict(family, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hi\n")
    folder = family.folder
    options = ["--model", str(folder / "base"), "--behavior", f"one={folder / 'one'}", "--mix", "one=1"]
    arguments = ["diagnose", *options, "--prompts", str(prompts), "--max-tokens", "4"]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)
    assert "1 · one" in result.stdout
    assert "'one'" in result.stdout
    (diagnosis,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert result.exit_code == int(diagnosis["verdict"] != "transfers")


def test_speeds_are_shown_relative_to_no_drafts():
    cells = dict(rows(GOOD))
    assert cells["tokens per round with 4 draft tokens"] == "3.00: 15.0 tokens/s (1.50x)"
    untimed = dict(rows(replace(GOOD, drafts=(DraftSpeed(0, 1.0, None),))))
    assert untimed["tokens per round without drafts"] == "1.00"
    no_endings = replace(GOOD.endings, end_base=None, end_tuned=None, end_reference=None)
    assert "-, -, -" in dict(rows(replace(GOOD, endings=no_endings))).values()


def test_greedy_answers_do_not_depend_on_the_models_temperature(llm):
    cold = EFTChatModel(**{**llm.model_dump(exclude_unset=True), "temperature": 0.0, "mixture": {"one": 1.0}})
    warm = EFTChatModel(**{**llm.model_dump(exclude_unset=True), "mixture": {"one": 1.0}})
    (a,), (b,) = (diagnose(each, ["hi"], max_tokens=5) for each in (cold, warm))
    assert a.figures.rewards == b.figures.rewards
    assert a.figures.acceptance != b.figures.acceptance
