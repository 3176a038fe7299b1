"""The ways to decode a recipe as systems, on a tiny family."""

import pytest
from langchain_core.messages import HumanMessage

from langchain_eft import BehaviorDelta, EFTChatModel, EFTRewardScorer
from langchain_eft.engine.recipe.schedules import Ramp
from langchain_eft.evaluation import (
    Case,
    EvaluationError,
    Length,
    PrefersChosen,
    Runner,
    System,
    Task,
    base_alone,
    gated,
    interpolation,
    mixed,
    nudged,
    reference_alone,
    small_alone,
    strength_sweep,
    top_p_sweep,
    tuned_alone,
    weight_sweep,
)
from langchain_eft.evaluation.preferences import compare_likelihoods
from unit_tests.evaluation.scripted import Scripted

CASE = Case("a", (HumanMessage("abc"),))
STEPS = 8


@pytest.fixture(scope="module")
def llm(family):
    return EFTChatModel(
        model=str(family.folder / "base"),
        behaviors=family.recipe.behaviors,
        mixture={"one": 1.0},
        temperature=0,
        engine_options={"kv_cache_tokens": 2048},
    )


def expected(llm, reference, mixture, **settings):
    tokenizer = llm.engine.tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "abc"}], add_generation_prompt=True, return_dict=False
    )
    answer = reference.greedy(ids, mixture, STEPS, **settings)
    # Bytes of a character that never was completed are no text.
    return tokenizer.decode(answer, skip_special_tokens=True).rstrip("\ufffd"), len(answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "mixture", "settings"),
    [
        (base_alone, {}, {}),
        (reference_alone, {}, {"strength": 0.0}),
        (lambda llm: tuned_alone(llm, "one"), {"one": 1.0}, {"strength": 0.0}),
        (lambda llm: tuned_alone(llm, "full"), {"full": 1.0}, {"strength": 0.0}),
        (lambda llm: small_alone(llm, {"one": 0.5, "two": 0.5}), {"one": 0.5, "two": 0.5}, {"strength": 0.0}),
        (lambda llm: mixed(llm, {"two": 1.5}), {"two": 1.5}, {}),
        (lambda llm: strength_sweep(llm, [2.0])[0], {"one": 1.0}, {"strength": 2.0}),
        (lambda llm: top_p_sweep(llm, [0.5])[0], {"one": 1.0}, {"top_p": 0.5}),
        (lambda llm: interpolation(llm, "one", "two", [0.25])[0], {"one": 0.25, "two": 0.75}, {}),
    ],
)
def test_a_system_decodes_what_its_name_says(llm, reference, build, mixture, settings):
    answer = build(llm).answer(CASE, max_tokens=STEPS, seed=1)
    said = answer.text.rstrip("\ufffd"), answer.usage["output_tokens"]
    assert said == expected(llm, reference, mixture, **settings)
    assert answer.details["mixture"] == mixture


def sure(reference, ids):
    return float(reference.logprobs(ids, {}).exp().max())


def test_gated_systems_ask_the_behavior_where_the_base_is_unsure(llm, reference):
    tokenizer = llm.engine.tokenizer
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "abc"}], add_generation_prompt=True, return_dict=False
    )
    for build, mixture, settings in (
        (gated, {"one": 1.0}, {}),
        (nudged, {"full": 1.0}, {"strength": 0.0}),
    ):
        (name,), answer, opened = mixture, [], []
        while len(answer) < STEPS and (not answer or answer[-1] != tokenizer.eos_token_id):
            ids = [*prompt, *answer]
            opened.append(sure(reference, ids) <= 0.12)
            logprobs = (
                reference.logprobs(ids, mixture, **settings) if opened[-1] else reference.logprobs(ids, {})
            )
            answer.append(int(logprobs.argmax()))
        system = build(llm, name, 0.12)
        found = system.answer(CASE, max_tokens=STEPS)
        said = found.text.rstrip("\ufffd"), found.usage["output_tokens"]
        assert said == (tokenizer.decode(answer, skip_special_tokens=True).rstrip("\ufffd"), len(answer))
        assert set(opened) == {True, False}, name
        assert system.name == f"{build.__name__} {name} at 0.12"


def test_nudging_by_an_adapter_gates_two_behaviors(llm, family, reference):
    with pytest.raises(EvaluationError, match=r"'one' needs a small model.*`adapter` and `reference`"):
        nudged(llm, "one")
    with pytest.raises(EvaluationError, match="'three' needs a small model"):
        nudged(llm, "three")
    behaviors = {
        "one": BehaviorDelta(adapter=str(family.folder / "one"), reference=str(family.folder / "reference"))
    }
    always = nudged(EFTChatModel(**{**llm_settings(llm), "behaviors": behaviors}), "one", 1.0)
    found = always.answer(CASE, max_tokens=STEPS)
    said = found.text.rstrip("\ufffd"), found.usage["output_tokens"]
    assert said == expected(llm, reference, {"one": 1.0}, strength=0.0)


def llm_settings(llm):
    return {name: getattr(llm, name) for name in llm.model_fields_set}


def test_names_and_identities_of_sweeps_are_unique(llm):
    systems = [
        *weight_sweep(llm, "one", [0.0, 0.5, 1.0]),
        *weight_sweep(llm, "one", [0.5, 1.0], small=True),
        *strength_sweep(llm, [0.5, 2.0]),
        *top_p_sweep(llm, [0.5, 0.9]),
        *interpolation(llm, "one", "two", [0.25, 0.5]),
    ]
    assert [s.name for s in systems[:3]] == ["base", "one=0.5", "one=1"]
    assert len({s.name for s in systems}) == len({s.identity for s in systems}) == len(systems)


def test_one_mixture_is_one_system_however_it_was_named(llm):
    assert mixed(llm, {"one": 1.0}).identity == System("default", llm).identity


def test_systems_share_the_engine(llm):
    assert mixed(llm, {"two": 1.0}).runnable.engine is llm.engine


def test_unknown_behaviors_are_refused_when_the_system_is_built(llm):
    with pytest.raises(ValueError, match="three"):
        mixed(llm, {"three": 1.0})


def test_a_sweep_is_cached_point_by_point(llm, tmp_path):
    task = Task("t", (CASE,), (Length(),), max_tokens=4)
    first = Runner(tmp_path).evaluate(weight_sweep(llm, "one", [0.0, 1.0]), [task])
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    second = Runner(tmp_path).evaluate(weight_sweep(llm, "one", [0.0, 0.5, 1.0]), [task])
    assert len(lines) == 2
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 3
    for name in ("base", "one=1"):
        assert first.cell(name, "t").values == second.cell(name, "t").values


PAIR = Case("p", (HumanMessage("abc"),), {"chosen": "xyz", "rejected": "q"})


def test_a_mixtures_reward_is_the_weighted_sum_of_its_behaviors(llm):
    found = compare_likelihoods(mixed(llm, {"one": 0.5, "two": 2.0}), PAIR).details
    parts = {
        name: EFTRewardScorer(llm, name).invoke({"prompt": "abc", "answers": ["xyz", "q"]})
        for name in ("one", "two")
    }
    sums = [0.5 * one + 2.0 * two for one, two in zip(parts["one"], parts["two"], strict=True)]
    assert [found["chosen"], found["rejected"]] == pytest.approx(sums, rel=1e-4)


def test_weights_that_change_over_the_answer_decode_but_give_no_reward(llm, tmp_path):
    system = mixed(llm, {"one": Ramp(start=0, end=1, tokens=4)})
    task = Task("t", (CASE,), (Length(),), max_tokens=STEPS)
    first = Runner(tmp_path).evaluate([system], [task])
    assert Runner(tmp_path).evaluate([system], [task]).cells[0].graded == first.cells[0].graded
    with pytest.raises(EvaluationError, match=r"'one' changes over the answer"):
        compare_likelihoods(system, PAIR)


def test_preferring_is_having_the_higher_reward(llm):
    swapped = Case("s", PAIR.messages, {"chosen": "q", "rejected": "xyz"})
    same = Case("e", PAIR.messages, {"chosen": "q", "rejected": "q"})
    task = Task("pairs", (PAIR, swapped, same), (PrefersChosen(),), ask=compare_likelihoods)
    values = Runner().evaluate([mixed(llm, {"one": 1.0})], [task]).cell("one=1", "pairs").values
    assert sorted(values[:2]) == [0, 1]
    assert values[2] == 0.5


def test_no_reward_without_behaviors(llm):
    with pytest.raises(EvaluationError, match=r"'base' has no implicit reward \(an empty mixture\)"):
        compare_likelihoods(base_alone(llm), PAIR)
    with pytest.raises(EvaluationError, match="Scripted"):
        compare_likelihoods(System("s", Scripted(reply=lambda messages: "")), PAIR)
