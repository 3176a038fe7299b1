"""Every form of the formula, each against an explicit loop: schedules, several references, other sizes."""

import random
import shutil
from contextlib import contextmanager

import pytest
import torch
from scipy import stats

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import GREEDY, Recorder, every_family, request, slow, wait_until
from unit_tests.oracle.adapters import merged

PROMPT = [7, 30, 9, 61, 61, 12]
DRAFTS = ["off", 1, 2, 4, 8, "auto"]
TOKENS = 20


def answers(engine, mixture, prompt=PROMPT, sampling=GREEDY, tokens=TOKENS, drafts=DRAFTS, **kwargs):
    """The tokens and ends of one request with every draft length, all in one batch."""
    recorders = [Recorder() for _ in drafts]
    for draft, recorder in zip(drafts, recorders, strict=True):
        engine.submit(request(prompt, mixture, sampling, tokens, speculation=draft, **kwargs), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [recorder.tokens for recorder in recorders], [recorder.events[-1] for recorder in recorders]


def agree(engine, reference, mixture, summands, **kwargs):
    """Whether every draft length says what the loop says."""
    found, _ = answers(engine, mixture, **kwargs)
    return found == [reference.loop(summands, TOKENS)] * len(DRAFTS)


@contextmanager
def opened(base, behaviors, **kwargs):
    recipe = Recipe(base=str(base), behaviors=behaviors, **kwargs)
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=2048, block_size=4))
    try:
        yield engine
    finally:
        engine.close()


# Schedules


SCHEDULES = [
    {"one": Ramp(start=0, end=1, tokens=8)},
    {"one": Ramp(start=1.5, end=0, tokens=5)},
    {"one": FirstTokens(tokens=4, weight=1.2, then=0.3)},
    {"one": FirstTokens(tokens=6), "two": Ramp(start=0.0, end=1.4, tokens=12)},
    {"full": Ramp(start=0.2, end=1, tokens=3), "two": FirstTokens(tokens=1, weight=0, then=0.8)},
    {"one": FirstTokens(tokens=3, weight=0, then=1)},
]


def scheduled(reference, mixture, strength=1.0):
    small = reference.small["reference"]
    at = {
        name: weight.at if hasattr(weight, "at") else lambda _, weight=weight: weight
        for name, weight in mixture.items()
    }
    return [
        (strength, reference.base, PROMPT),
        *((weight, reference.small[name], PROMPT) for name, weight in at.items()),
        (lambda t: 1 - strength - sum(weight(t) for weight in at.values()), small, PROMPT),
    ]


@every_family
@pytest.mark.slow
@pytest.mark.parametrize("mixture", [*SCHEDULES[:2], *slow(*SCHEDULES[2:])])
def test_weights_follow_the_position_whatever_is_drafted(engine, reference, mixture):
    assert agree(engine, reference, mixture, scheduled(reference, mixture))


@pytest.mark.slow
def test_schedules_go_with_strength_and_conservative_decoding(engine, reference):
    mixture = {"one": Ramp(start=0, end=1, tokens=4), "two": FirstTokens(tokens=5, then=0.4)}
    summands = scheduled(reference, mixture, strength=1.4)
    assert agree(engine, reference, mixture, summands, upscale_strength=1.4)
    found, _ = answers(engine, mixture, upscale_top_p=0.6)
    assert len({tuple(tokens) for tokens in found}) == 1
    for position, token in enumerate(found[0]):
        here = {name: weight.at(position) for name, weight in mixture.items()}
        logp = reference.logprobs([*PROMPT, *found[0][:position]], here, top_p=0.6)
        assert token == int(logp.argmax())


@pytest.mark.slow
@pytest.mark.parametrize("mixture", SCHEDULES[3:5])
def test_samples_follow_the_schedule(engine, reference, mixture):
    """sum log p(y) + H(p) over all tokens has mean 0 if the answers are samples of p."""
    total = variance = 0.0
    texts = {draft: sampled(engine, mixture, draft) for draft in ("off", 3)}
    assert texts["off"] == texts[3]
    for tokens in texts[3]:
        logp = reference.mixed(scheduled(reference, mixture), tokens[:-1])
        entropy = -(logp.exp() * logp).sum(-1)
        total += float((logp.gather(1, torch.tensor(tokens)[:, None])[:, 0] + entropy).sum())
        variance += float(((logp.exp() * logp**2).sum(-1) - entropy**2).sum())
    assert 2 * stats.norm.sf(abs(total) / variance**0.5) > 1e-4


def sampled(engine, mixture, draft):
    recorders = [Recorder() for _ in range(40)]
    for seed, recorder in enumerate(recorders):
        sampling = SamplingParams(temperature=1.0, seed=seed)
        engine.submit(request(PROMPT, mixture, sampling, 8, speculation=draft), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [recorder.tokens for recorder in recorders]


@pytest.mark.slow
def test_the_wrong_schedule_would_be_noticed(engine, reference):
    mixture, other = SCHEDULES[0], {"one": Ramp(start=0, end=1, tokens=9)}
    rng = random.Random(0)
    prompts = [[rng.randrange(4, 200) for _ in range(6)] for _ in range(6)]
    expected = [answers(engine, mixture, prompt, drafts=["off"])[0][0] for prompt in prompts]
    expected_other = [answers(engine, other, prompt, drafts=["off"])[0][0] for prompt in prompts]
    assert expected != expected_other


def test_a_behavior_that_is_off_for_a_while_is_caught_up(engine):
    # Its models run from the start, so that speculation and prefix cache see one set of terms throughout.
    mixture = {"one": FirstTokens(tokens=3, weight=0, then=1)}
    _, ends = answers(engine, mixture, drafts=[4], tokens=TOKENS)
    assert ends[0].drafted_tokens > 0


# Recipes of other shapes


@pytest.mark.slow
def test_references_of_their_own_mix_and_what_needs_one_says_so(family, reference):
    folder = family.folder
    late = merged(reference.small["full"], folder / "two")
    behaviors = {
        "one": BehaviorDelta(adapter=str(folder / "one")),
        "late": BehaviorDelta(adapter=str(folder / "two"), reference=str(folder / "tuned")),
    }
    base, small, one, full = (
        reference.base, *(reference.small[name] for name in ("reference", "one", "full"))
    )  # fmt: skip
    with opened(folder / "base", behaviors) as engine:
        summands = [
            *((1, base, PROMPT), (0.8, one, PROMPT), (-0.8, small, PROMPT)),
            *((0.7, late, PROMPT), (-0.7, full, PROMPT)),
        ]
        assert agree(engine, reference, {"one": 0.8, "late": 0.7}, summands)
        for setting in ({"upscale_strength": 1.5}, {"upscale_top_p": 0.9}):
            with pytest.raises(RecipeError, match=r"upscale_\w+=.*'late', 'one'.*2 different ones.*share"):
                answers(engine, {"one": 0.8, "late": 0.7}, **setting)
        strong = [(1.5, base, PROMPT), (1, late, PROMPT), (-1.5, full, PROMPT)]
        assert agree(engine, reference, {"late": 1.0}, strong, upscale_strength=1.5)


def test_a_tuned_model_that_is_also_a_reference_cancels_out(family, reference):
    folder = family.folder
    behaviors = {
        "full": BehaviorDelta(tuned=str(folder / "tuned"), reference=str(folder / "reference")),
        "late": BehaviorDelta(adapter=str(folder / "two"), reference=str(folder / "tuned")),
    }
    late = merged(reference.small["full"], folder / "two")
    with opened(folder / "base", behaviors) as engine:
        assert len(engine.family.models) == 3
        summands = [
            *((1, reference.base, PROMPT), (1, late, PROMPT)),
            (-1, reference.small["reference"], PROMPT),
        ]
        assert agree(engine, reference, {"full": 1.0, "late": 1.0}, summands)


def test_two_names_of_one_adapter_are_one_model_and_their_weights_add_up(family, reference):
    folder = family.folder
    same = BehaviorDelta(adapter=str(folder / "one"))
    with opened(folder / "base", {"a": same, "b": same}) as engine:
        assert sum(model.variants for model in engine.family.models) == 3
        summands = scheduled(reference, {"one": 1.1})
        assert agree(engine, reference, {"a": 0.4, "b": 0.7}, summands)


@pytest.fixture(scope="module")
def small_base(family, tmp_path_factory):
    """The tuned model with a tokenizer, so that it can be a base."""
    folder = tmp_path_factory.mktemp("family") / "tuned"
    shutil.copytree(family.folder / "tuned", folder)
    for file in family.folder.glob("base/*token*"):
        shutil.copy(file, folder)
    for file in family.folder.glob("base/*.jinja"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.slow
def test_a_base_that_is_the_reference_is_decoding_time_realignment(family, reference, small_base):
    folder = family.folder
    full, late = reference.small["full"], merged(reference.small["full"], folder / "two")
    delta = BehaviorDelta(adapter=str(folder / "two"), reference=str(small_base))
    with opened(small_base, {"late": delta}, allow_negative_weights=True) as engine:
        assert len(engine.family.models) == 1
        for weight in (0.3, 1.0, 1.8, -0.4):
            summands = [(1 - weight, full, PROMPT), (weight, late, PROMPT)]
            assert agree(engine, reference, {"late": weight}, summands)
        # beta cancels where L is S.
        assert agree(
            engine, reference, {"late": 0.3}, [(0.7, full, PROMPT), (0.3, late, PROMPT)], upscale_strength=2.0
        )


@pytest.mark.slow
def test_a_small_base_drafts_for_a_large_pair(family, reference, small_base):
    folder = family.folder
    delta = BehaviorDelta(adapter=str(folder / "one"), reference=str(folder / "base"))
    base, large = reference.small["full"], reference.base
    tuned = merged(large, folder / "one")
    with opened(small_base, {"down": delta}) as engine:
        for weight in (1.0, 0.6):
            summands = [(1, base, PROMPT), (weight, tuned, PROMPT), (-weight, large, PROMPT)]
            assert agree(engine, reference, {"down": weight}, summands)
        _, ends = answers(engine, {"down": 0.05}, drafts=[4], tokens=TOKENS)
        # With next to no behavior the base foretells the mixture, and only it is drafted with.
        assert ends[0].acceptance_rate > 0.7


@pytest.mark.slow
def test_amplification_and_its_opposite(engine, reference):
    for beta in (0.0, 0.5, 2.0):
        summands = scheduled(reference, {"one": 0.9}, strength=beta)
        assert agree(engine, reference, {"one": 0.9}, summands, upscale_strength=beta)
