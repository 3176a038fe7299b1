"""Weights with gates decode and score by their definition, whatever drafts, in both kinds of rounds."""

from itertools import product

import pytest
import torch
from scipy import stats

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp, weight_at
from langchain_eft.engine.request import GivenAnswers, SamplingParams
from langchain_eft.engine.rounds import shape as shapes_module
from unit_tests.helpers import GREEDY, Recorder, engine_of, full, request, slow, wait_until

PROMPT = [7, 30, 9, 61, 61, 12]
DRAFTS = ["off", 1, 2, 4, "auto"]
TOKENS = 20

MIXTURES = [
    {"one": Gate(below=0.12)},
    {"one": Gate(above=0.12, weight=1.4, otherwise=0.3), "full": Gate(above=4.2, measure="entropy")},
    {"one": Gate(below=0.12), "two": Gate(above=0.12, weight=0.8)},
    {"one": Gate(below=0.15, weight=1.2), "two": Ramp(start=0, end=1, tokens=6), "full": 0.4},
]


@pytest.fixture(scope="module", params=["compact", *slow("overlapped")])
def decoder(request, family):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes_module, "MIN_CONTEXT", 32)  # more shapes occur
        with engine_of(
            family.recipe, request.param, kv_cache_tokens=8192, block_size=4, max_num_batched_tokens=512,
            max_batch_size=128, max_queued_requests=9000,
        ) as engine:  # fmt: skip
            yield engine


def opened(base, mixture):
    """Which gates of a mixture are open, by [V] log-probabilities of the base."""
    probs = base.exp()
    at = {"confidence": float(probs.max()), "entropy": float(stats.entropy(probs))}
    return {name: w.opens(at[w.measure]) for name, w in mixture.items() if isinstance(w, Gate)}


def here(reference, answer, mixture, prompt=PROMPT):
    """The weights of the token after the beginning of an answer, by their definition."""
    gates = opened(reference.logprobs([*prompt, *answer], {}), mixture)
    return {name: weight_at(w, len(answer), opened=gates.get(name, False)) for name, w in mixture.items()}


def log_p(reference, answer, mixture, prompt=PROMPT, **settings):
    return reference.logprobs([*prompt, *answer], here(reference, answer, mixture, prompt), **settings)


def greedy(reference, mixture, steps=TOKENS, **settings):
    answer = []
    while len(answer) < steps and (not answer or answer[-1] != 0):
        answer.append(int(log_p(reference, answer, mixture, **settings).argmax()))
    return answer


def answers(engine, mixture, sampling=GREEDY, drafts=DRAFTS, **kwargs):
    """The tokens of one request with every draft length, all in one batch."""
    recorders = [Recorder() for _ in drafts]
    for draft, recorder in zip(drafts, recorders, strict=True):
        engine.submit(request(PROMPT, mixture, sampling, TOKENS, speculation=draft, **kwargs), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [recorder.tokens for recorder in recorders]


@pytest.mark.slow
def test_gates_of_these_mixtures_open_and_close(reference):
    """Else the other tests would not notice a gate that never moves."""
    for mixture in MIXTURES:
        answer = greedy(reference, mixture)
        bases = [reference.logprobs([*PROMPT, *answer[:i]], {}) for i in range(len(answer))]
        for name, gate in mixture.items():
            if isinstance(gate, Gate):
                assert {opened(base, mixture)[name] for base in bases} == {True, False}, name


@pytest.mark.parametrize("mixture", [*MIXTURES[:2], *slow(*MIXTURES[2:])])
def test_greedy_answers_are_the_loops_for_every_draft_length(decoder, reference, mixture):
    assert answers(decoder, mixture) == [greedy(reference, mixture)] * len(DRAFTS)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(1.5, 1.0), (1.0, 0.6), (0.0, 1.0), (1.3, 0.8)])
def test_gates_go_with_strength_and_conservative_decoding(decoder, reference, settings):
    strength, top_p = settings
    mixture = {"one": Gate(below=0.12), "two": Gate(above=0.12, weight=0.8)}
    expected = greedy(reference, mixture, strength=strength, top_p=top_p)
    found = answers(decoder, mixture, upscale_strength=strength, upscale_top_p=top_p)
    assert found == [expected] * len(DRAFTS)


TRIPLES = [(1, 2), (3, "auto")]
"""Places of mixtures, and draft lengths, of every push."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [*TRIPLES, *full(*(case for case in product(range(4), DRAFTS) if case not in TRIPLES))], ids=str
)
def test_triples_of_tokens_follow_their_joint_distribution(decoder, reference, case):
    """Chi-squared over all answers of three tokens, of which up to two are draft tokens."""
    (place, draft), n, sampling = case, 1200, {"temperature": 0.5, "top_k": 3}
    mixture = MIXTURES[place]
    recorders = [Recorder() for _ in range(n)]
    for seed, recorder in enumerate(recorders):
        params = SamplingParams(**sampling, seed=seed)
        decoder.submit(request(PROMPT, mixture, params, 3, speculation=draft), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    expected = {(): float(n)}
    for _ in range(3):
        expected = {
            (*answer, token): count * probability
            for answer, count in expected.items()
            for token, probability in following(reference, answer, mixture, **sampling)
        }
    found = [tuple(recorder.tokens) for recorder in recorders]
    assert set(found) <= expected.keys()
    common = [answer for answer, count in expected.items() if count >= 5]
    assert len(common) > 10
    observed = [*(found.count(answer) for answer in common), n - sum(map(found.count, common))]
    predicted = [*(expected[answer] for answer in common), n - sum(expected[answer] for answer in common)]
    assert stats.chisquare(observed, predicted, sum_check=False).pvalue > 1e-4


def following(reference, answer, mixture, temperature, top_k):
    """The tokens that may follow the beginning of an answer, with their probabilities."""
    if answer[-1:] == (0,):
        return []
    best = (log_p(reference, list(answer), mixture) / temperature).topk(top_k)
    return list(zip(best.indices.tolist(), best.values.softmax(-1).tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(temperature=1.0, seed=4)])
@pytest.mark.parametrize(
    ("gate", "plain"),
    [
        (Gate(below=1, weight=0.8), 0.8),
        (Gate(above=0, weight=0.8, measure="confidence"), 0.8),
        (Gate(below=99, weight=0.8, measure="entropy"), 0.8),
        (Gate(below=0.12, weight=0.8, otherwise=0.8), 0.8),
    ],
)
def test_a_gate_that_is_always_open_is_its_weight(decoder, gate, plain, sampling):
    gated, expected = (
        answers(decoder, {"one": weight, "two": 0.4}, sampling, drafts=["off", 3]) for weight in (gate, plain)
    )
    assert gated == expected


@pytest.mark.slow
@pytest.mark.parametrize("gate", [Gate(below=0, weight=0.8, otherwise=0.5), Gate(above=1, otherwise=0.5)])
def test_a_gate_that_never_opens_is_its_other_weight(decoder, gate):
    """Samples are those of p, though q assumes an open gate, and with q the seed's samples change."""
    gated, expected = (answers(decoder, {"one": weight, "two": 0.4}) for weight in (gate, 0.5))
    assert gated == expected


def test_gates_go_with_penalties_biases_and_filters(decoder):
    """Every draft length gives the text of no drafts."""
    sampling = SamplingParams(
        temperature=1.1, top_k=20, top_p=0.9, repetition_penalty=1.2, frequency_penalty=0.3,
        logit_bias={40: 3.0}, seed=13,
    )  # fmt: skip
    assert len({tuple(tokens) for tokens in answers(decoder, MIXTURES[1], sampling)}) == 1


def test_penalties_change_p_and_not_the_gate(decoder, reference):
    """A bias that excludes the base's favorite token leaves the base as sure as it was."""
    mixture, answer = {"one": Gate(above=0.12, weight=1.4, otherwise=0.3)}, []
    banned = dict.fromkeys(greedy(reference, mixture)[:3], -100.0)
    for _ in range(TOKENS):
        logits = log_p(reference, answer, mixture).clone()
        logits[list(banned)] -= 100
        answer.append(int(logits.argmax()))
        if answer[-1] == 0:
            break
    sampling = GREEDY.model_copy(update={"logit_bias": banned})
    assert answers(decoder, mixture, sampling) == [answer] * len(DRAFTS)


def test_gates_go_with_grammars(decoder, reference):
    """The grammar restricts p. It changes nothing about L, so it does not open a gate."""
    letters = "abcd"
    ids = [decoder.tokenizer.convert_tokens_to_ids(letter) for letter in letters]
    mixture, answer = MIXTURES[1], []
    for _ in range(6):
        answer.append(ids[int(log_p(reference, answer, mixture)[ids].argmax())])
    found = answers(decoder, mixture, grammar="start: /[abcd]{6}/")
    assert [tokens[:6] for tokens in found] == [answer] * len(DRAFTS)


@pytest.mark.slow
def test_rows_with_and_without_gates_share_a_batch(decoder, reference):
    mixtures = [*MIXTURES, {}, {"one": 1.0}, {"two": FirstTokens(tokens=3, weight=1, then=0.2)}]
    work = [(mixture, draft, Recorder()) for mixture, draft in product(mixtures, ("off", 3, "auto"))]
    for mixture, draft, recorder in work:
        decoder.submit(request(PROMPT, mixture, GREEDY, 12, speculation=draft), recorder)
    wait_until(lambda: all(recorder.ended for *_, recorder in work))
    for mixture, _, recorder in work:
        assert recorder.tokens == greedy(reference, mixture, 12)


def test_logprobs_are_those_of_the_weights_that_the_gates_give(decoder, reference):
    recorder = Recorder()
    decoder.submit(request(PROMPT, MIXTURES[1], GREEDY, 8, speculation=3, top_logprobs=2), recorder)
    wait_until(lambda: recorder.ended)
    logprobs = [entry for event in recorder.events[:-1] for entry in event.logprobs]
    for i, entry in enumerate(logprobs):
        expected = log_p(reference, recorder.tokens[:i], MIXTURES[1])
        assert entry.logprob == pytest.approx(float(expected[recorder.tokens[i]]), abs=1e-4)


# What only one kind of rounds does


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["off", 3])
@pytest.mark.parametrize("settings", [{}, {"upscale_strength": 1.3, "upscale_top_p": 0.7}])
def test_traces_show_where_gates_are_open(engine, reference, draft, settings):
    mixture = {"one": Gate(below=0.12, otherwise=0.2), "two": 0.5}
    one = request(PROMPT, mixture, GREEDY, TOKENS, trace=True, speculation=draft, **settings)
    deltas = [event for event in engine.stream(one) if isinstance(event, TextDelta)]
    tokens = [token for delta in deltas for token in delta.tokens]
    found = set()
    for i, trace in enumerate(trace for delta in deltas for trace in delta.traces):
        base = reference.logprobs([*PROMPT, *tokens[:i]], {})
        weights = here(reference, tokens[:i], mixture)
        assert {name: part.weight for name, part in trace.behaviors.items()} == weights
        assert trace.behaviors["one"].opened == opened(base, mixture)["one"]
        assert trace.behaviors["two"].opened is None
        assert trace.base == pytest.approx(float(base[tokens[i]]), abs=1e-3)
        strength, top_p = settings.get("upscale_strength", 1.0), settings.get("upscale_top_p", 1.0)
        expected = log_p(reference, tokens[:i], mixture, strength=strength, top_p=top_p)
        assert trace.logprob == pytest.approx(float(expected[tokens[i]]), abs=1e-3)
        without = reference.logprobs([*PROMPT, *tokens[:i]], {"two": 0.5}, strength=strength, top_p=top_p)
        distance = float((expected.exp() - without.exp()).abs().sum()) / 2
        assert trace.behaviors["one"].shift.total_variation == pytest.approx(distance, abs=1e-4)
        found.add(trace.behaviors["one"].opened)
    assert found == {True, False}


@pytest.mark.parametrize("settings", [{}, {"upscale_strength": 1.3}, {"upscale_top_p": 0.7}])
def test_given_answers_are_scored_with_gates(engine, reference, settings):
    mixture = {"one": Gate(below=0.12, otherwise=0.2), "two": Gate(above=4.2, measure="entropy", weight=0.9)}
    given = ((9, 17, 200, 4, 90, 31), (9, 17, 5), (60, 61))
    plain = GivenAnswers(request(PROMPT, {"one": 1.0}, **settings), given)
    (gated, _) = engine.answer_logprobs(
        [GivenAnswers(request(PROMPT, mixture, **settings), given), plain]
    ).logprobs
    strength, top_p = settings.get("upscale_strength", 1.0), settings.get("upscale_top_p", 1.0)
    for answer, logprobs in zip(given, gated, strict=True):
        for i, logprob in enumerate(logprobs):
            expected = log_p(reference, answer[:i], mixture, strength=strength, top_p=top_p)
            assert logprob == pytest.approx(float(expected[answer[i]]), abs=1e-4)


def test_a_comparison_follows_the_gate(engine, reference):
    answer = tuple(greedy(reference, {"one": 1.0}))
    gated = engine.compare(request(PROMPT, {"one": Gate(below=0.12)}), answer)
    compared = [engine.compare(request(PROMPT, {"one": weight}), answer) for weight in (1.0, 0.0001)]
    for i in range(len(answer)):
        base = reference.logprobs([*PROMPT, *answer[:i]], {})
        shut = not opened(base, {"one": Gate(below=0.12)})["one"]
        expected = compared[shut].tv_target_base[i]
        assert gated.tv_target_base[i] == pytest.approx(expected, abs=1e-3)


def test_nudging_is_a_gate_on_a_model_that_has_the_base_as_its_reference(family, reference, tmp_path):
    """p is L where the base is sure, and F elsewhere: the small model's token in its place."""
    folder = family.folder
    nudge = BehaviorDelta(tuned=str(folder / "tuned"), reference=str(folder / "base"))
    recipe = Recipe(base=str(folder / "base"), behaviors={"nudge": nudge})
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=2048, block_size=4))
    try:
        answer = []
        for _ in range(TOKENS):
            ids = torch.tensor([[*PROMPT, *answer]])
            large, small = (
                model(ids).logits[0, -1].softmax(-1) for model in (reference.base, reference.small["full"])
            )
            answer.append(int((small if large.max() <= 0.12 else large).argmax()))
            if answer[-1] == 0:
                break
        assert answers(engine, {"nudge": Gate(below=0.12)}) == [answer] * len(DRAFTS)
    finally:
        engine.close()


def test_exponents_are_checked_in_every_state_of_the_gates(family, reference):
    folder = family.folder
    own = BehaviorDelta(tuned=str(folder / "tuned"), reference=str(folder / "base"))
    recipe = Recipe(base=str(folder / "base"), behaviors={"own": own, "other": own})
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=512))
    try:
        for mixture in (
            {"own": Gate(below=0.4, weight=1.1)},
            {"own": Gate(below=0.4, otherwise=1.1)},
            {"own": Gate(below=0.4), "other": Gate(below=0.2, weight=0.3)},
        ):
            with pytest.raises(RecipeError, match=r"the base .* the exponent -0"):
                engine.submit(request([5], mixture), Recorder())
        with pytest.raises(RecipeError, match=r"'own' is .*falls to -0.5: negative weights"):
            engine.submit(request([5], {"own": Gate(below=0.4, otherwise=-0.5)}), Recorder())
        never_both = {"own": Gate(below=0.4), "other": Gate(above=0.4)}
        assert list(engine.stream(request([5], never_both, max_tokens=2)))
    finally:
        engine.close()
