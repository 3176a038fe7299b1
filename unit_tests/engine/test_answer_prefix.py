"""An answer that begins with given tokens goes on as if it had drawn them itself."""

import json
import random
from itertools import cycle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import ContextWindowError, RequestError
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds import shape as shapes_module
from unit_tests.helpers import (
    GREEDY,
    Recorder,
    answer,
    engine_of,
    every_family,
    full,
    request,
    slow,
    wait_until,
)

PROMPT = [7, 30, 9, 61, 61, 12]
CAPTAIN = {"captain": (9, 5, 80)}


def closed_object(**properties) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ARGUMENTS = closed_object(n={"enum": [1, 23]})
OBJECT = f"start: %json {json.dumps(closed_object(a={'enum': ['x', 'yy']}, b={'type': 'boolean'}))}"
CALL = f"""start: "<tool_call>" call "</tool_call>"
call: %json {json.dumps(closed_object(name={"const": "look"}, arguments=ARGUMENTS))}"""
SAMPLED = SamplingParams(seed=11)
KINDS = {
    "greedy": {"mixture": {"one": 1.0}},
    "sampled": {"mixture": {"one": 0.6, "two": 0.9}, "sampling": SAMPLED},
    "base alone": {"mixture": {}, "sampling": SAMPLED},
    "filters": {
        "mixture": {"full": 1.0},
        "sampling": SamplingParams(temperature=1.2, top_k=20, top_p=0.9, min_p=0.02, seed=3),
    },
    "penalties": {
        "mixture": {"one": 1.0},
        "sampling": SamplingParams(
            frequency_penalty=0.9, presence_penalty=0.5, repetition_penalty=1.2, logit_bias={40: 3.0}, seed=4
        ),
    },
    "schedule": {
        "mixture": {"one": Ramp(start=0, end=2, tokens=15), "two": FirstTokens(tokens=6, weight=1.5, then=0)},
        "sampling": SAMPLED,
    },
    "conservative": {"mixture": {"one": 1.0}, "sampling": SAMPLED, "upscale_top_p": 0.6},
    "schema": {"mixture": {"one": 1.0}, "sampling": SAMPLED, "grammar": OBJECT, "max_tokens": 60},
    "call": {"mixture": {"one": 1.0}, "sampling": SAMPLED, "grammar": CALL, "max_tokens": 90},
    "greedy call": {"mixture": {"two": 1.0}, "grammar": CALL, "max_tokens": 90},
    "two prompts": {"mixture": {"captain": 1.5}, "sampling": SAMPLED, "contexts": CAPTAIN},
    "two prompts, greedy": {"mixture": {"captain": 0.5, "one": 0.5}, "contexts": CAPTAIN},
    "endless": {
        "mixture": {"two": 1.7},
        "sampling": SamplingParams(seed=8, logit_bias={0: -100.0}),
    },
    "stop strings": {"mixture": {"one": 1.0}, "sampling": SAMPLED, "stop": ("never this", "e")},
}


@pytest.fixture(scope="module", autouse=True)
def short_contexts():
    """With low bounds of the contexts, more shapes occur."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes_module, "MIN_CONTEXT", 32)
        yield


@pytest.fixture(scope="module", params=["compact", *slow("overlapped"), *full("padded")])
def engine(request, family):
    behaviors = {**family.recipe.behaviors, "captain": BehaviorDelta(prompt="You are a captain.")}
    recipe = family.recipe.model_copy(update={"behaviors": behaviors})
    with engine_of(
        recipe, request.param, kv_cache_tokens=8192, block_size=4, max_num_batched_tokens=64
    ) as engine:
        yield engine


def asked(kind, prefix=(), **kwargs):
    fields = {"max_tokens": 24, **KINDS[kind], **kwargs, "answer_prefix": tuple(prefix)}
    return request(PROMPT, **fields)


def decoded(engine, requests) -> list[Recorder]:
    """What the callers of requests in one batch are told."""
    recorders = [Recorder() for _ in requests]
    for each, recorder in zip(requests, recorders, strict=True):
        engine.submit(each, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return recorders


def deltas(recorder) -> list[TextDelta]:
    return [event for event in recorder.events if isinstance(event, TextDelta)]


def pieces(recorder) -> list[str]:
    return [piece for delta in deltas(recorder) for piece in delta.pieces]


EVERYDAY = ["filters", "schedule", "call", "two prompts", "stop strings"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*EVERYDAY, *full(*(kind for kind in KINDS if kind not in EVERYDAY))])
def test_a_beginning_of_an_answer_leads_to_the_whole_answer(engine, kind):
    (whole,) = decoded(engine, [asked(kind)])
    tokens, end = whole.tokens, whole.events[-1]
    assert len(tokens) > 3, "an answer this short shows nothing"
    lengths = sorted({1, 2, len(tokens) // 3, len(tokens) // 2, len(tokens) - 1})
    begun = [
        asked(kind, tokens[:k], speculation=draft)
        for k, draft in zip(lengths, cycle(("off", 4, "auto")), strict=False)
    ]
    recorders = decoded(engine, begun)
    for k, recorder in zip(lengths, recorders, strict=True):
        assert recorder.tokens == tokens, k
        assert recorder.text == whole.text
        assert pieces(recorder) == pieces(whole)
        assert deltas(recorder)[0].tokens == tuple(tokens[:k])
        assert deltas(recorder)[-1].cut == deltas(whole)[-1].cut
        finished = recorder.events[-1]
        assert finished.reason == end.reason
        assert finished.prompt_tokens == len(PROMPT) + k
        assert finished.completion_tokens == len(tokens) - k
        assert finished.context_tokens == {name: n + k for name, n in end.context_tokens.items()}
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_blocks == 8192 // 4


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_beginnings_of_every_kind_in_one_batch(engine, seed):
    rng = random.Random(seed)
    kinds = rng.choices(list(KINDS), k=10)
    drafts = [rng.choice(["off", "auto", 1, 4]) for _ in kinds]
    wholes = decoded(engine, [asked(kind) for kind in kinds])
    prefixes = [whole.tokens[: rng.randrange(len(whole.tokens))] for whole in wholes]
    begun = [asked(*pair, speculation=draft) for *pair, draft in zip(kinds, prefixes, drafts, strict=True)]
    for whole, recorder in zip(wholes, decoded(engine, begun), strict=True):
        assert (recorder.tokens, recorder.text) == (whole.tokens, whole.text)


@pytest.mark.parametrize("kind", ["sampled", "two prompts"])
def test_log_probabilities_and_traces_are_those_of_the_drawn_tokens(engine, kind):
    (whole,) = decoded(engine, [asked(kind, top_logprobs=2, trace=True)])
    logprobs = [entry for delta in deltas(whole) for entry in delta.logprobs]
    traces = [entry for delta in deltas(whole) for entry in delta.traces]
    (begun,) = decoded(engine, [asked(kind, whole.tokens[:9], top_logprobs=2, trace=True)])
    first, *drawn = deltas(begun)
    assert (first.logprobs, first.traces) == ((), ())
    for delta in drawn:
        assert len(delta.logprobs) == len(delta.traces) == len(delta.tokens)
    entries = [entry for delta in drawn for entry in delta.logprobs]
    assert [entry.logprob for entry in entries] == pytest.approx(
        [entry.logprob for entry in logprobs[9:]], abs=1e-4
    )
    assert [entry.base for delta in drawn for entry in delta.traces] == pytest.approx(
        [entry.base for entry in traces[9:]], abs=1e-4
    )


@every_family
def test_a_beginning_of_somebody_elses_is_followed_as_given(engine, reference):
    """A fork: a token that would not have been drawn, and then the answer that p gives behind it."""
    (whole,) = decoded(engine, [asked("greedy")])
    fork = [*whole.tokens[:5], next(i for i in range(4, 99) if i != whole.tokens[5])]
    (begun,) = decoded(engine, [asked("greedy", fork)])
    assert begun.tokens == [*fork, *reference.greedy([*PROMPT, *fork], {"one": 1.0}, 24 - len(fork))]


@pytest.mark.slow
def test_a_preempted_answer_keeps_its_beginning(family):
    config = EngineConfig(device="cpu", kv_cache_tokens=64, block_size=4, max_num_batched_tokens=32)
    engine = Engine(family.recipe, config)
    endless = SamplingParams(seed=5, logit_bias={0: -100.0})
    try:
        (whole,) = decoded(engine, [asked("sampled", sampling=endless, max_tokens=40)])
        again = [asked("sampled", whole.tokens[:k], sampling=endless, max_tokens=40) for k in (1, 12, 30)]
        recorders = decoded(engine, again)
        assert engine.stats().preemptions
        assert [recorder.tokens for recorder in recorders] == [whole.tokens] * 3
        assert engine.stats().free_blocks == 16
    finally:
        engine.close()


def test_a_beginning_that_was_decoded_before_is_in_the_prefix_cache(engine):
    (whole,) = decoded(engine, [asked("greedy")])
    _, end = answer(engine, asked("greedy", whole.tokens[:-1]))
    assert end.cached_tokens > len(PROMPT)
    assert end.cached_tokens < end.prompt_tokens


# Beginnings that no answer can have


def ids(engine, text):
    return engine.tokenizer(text).input_ids


def refused(engine, prefix, error, match, **kwargs):
    running = engine.stats().running
    with pytest.raises(error, match=match):
        engine.submit(request(PROMPT, {"one": 1.0}, answer_prefix=tuple(prefix), **kwargs), Recorder())
    assert engine.stats().running == running


def test_ids_outside_the_vocabulary(engine):
    for token in (9999, -1, 2**70):
        refused(engine, [5, token], RequestError, rf"Token id {token} in `answer_prefix`.*outside")


def test_an_end_token(engine):
    refused(
        engine,
        [9, 0, 5],
        RequestError,
        r"token 2 of 3 in `answer_prefix`, id 0, for it ends an answer: leave",
    )


def test_a_stop_string(engine):
    prefix = ids(engine, "one two")
    refused(engine, prefix, RequestError, r"token 5 of 7 .*completes a stop string", stop=("e t",))
    text, _ = answer(
        engine, request(PROMPT, answer_prefix=tuple(prefix), stop=("two!",), max_tokens=8, sampling=GREEDY)
    )
    assert text.startswith("one ")


def test_what_the_grammar_forbids(engine):
    for prefix, number in (("ax", 2), ("abc", 3), ("x", 1)):
        refused(
            engine,
            ids(engine, prefix),
            RequestError,
            rf"forbids token {number} of {len(prefix)} in `answer_prefix`, id \d+.*leave it",
            grammar='start: "ab" ("c" "d")?' if prefix != "abc" else 'start: "ab" "d"',
        )


def test_what_the_grammar_cannot_go_on_from(engine):
    refused(
        engine,
        ids(engine, "ab"),
        RequestError,
        "token 2 of 2 .*the grammar allows nothing behind it",
        grammar='start: "ab"',
    )


@pytest.mark.parametrize("max_tokens", [1, 3, 4])
def test_as_long_as_the_answer_may_be(engine, max_tokens):
    refused(
        engine,
        [5, 6, 7, 8],
        RequestError,
        rf"token {max_tokens} of 4 .*max_tokens={max_tokens} is reached.*raise max_tokens",
        max_tokens=max_tokens,
    )


def test_longer_than_the_window(engine):
    refused(engine, [5] * 1018, ContextWindowError, "1024.*shorten", max_tokens=9)
    refused(engine, [5] * 9, ContextWindowError, "lower `max_tokens` to 1018", max_tokens=1019)
    answer(engine, request(PROMPT, answer_prefix=(5,) * 1017, max_tokens=1018))
