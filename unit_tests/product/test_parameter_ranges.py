"""Hostile parameters: every value in and beyond its range is decoded or refused, and nobody else notices.

Beside every call another request decodes on the same engine, and its text must be the one that it has alone.
"""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import ModelError
from pydantic import ValidationError

from langchain_eft import EFTChatModel
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import DecodingError, EngineError
from langchain_eft.engine.events import Failed
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import FUZZ, Recorder, request, slow, wait_until

NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.floats(0, 2),
    st.integers(0, 8),
    st.sampled_from([5e-324, 1e-7, 1e38, 1e300, -1e308, math.nan, math.inf]),
    st.sampled_from([1e4, -1e4, 1e-4, 1e-6, 1e6, 1e-30]),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64]),
    st.sampled_from([400, 5000]).map(lambda digits: 10**digits),
)
JUNK = st.sampled_from([None, True, "", "5", "x", b"5", [], [1], {}, {"x": 1}, 3j, "\ud800"])
VALUES = NUMBERS | JUNK
WEIGHTS = (
    VALUES
    | st.fixed_dictionaries({"start": VALUES, "end": VALUES, "tokens": VALUES})
    | st.fixed_dictionaries({"tokens": VALUES}, optional={"weight": VALUES, "then": VALUES})
)
LENGTHS = st.integers(max_value=8) | st.integers(min_value=1025) | JUNK
FIELDS = {
    **dict.fromkeys(
        (
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty",
            "presence_penalty", "seed", "upscale_strength", "upscale_top_p", "speculation", "timeout",
        ),
        VALUES,
    ),
    "n": st.integers(max_value=3) | st.integers(min_value=1025) | JUNK,
    "max_tokens": LENGTHS,
    "logprobs": st.booleans() | VALUES,
    "top_logprobs": VALUES,
    "trace": st.booleans() | VALUES,
    "speculation": st.sampled_from(["off", "auto"]) | VALUES,
    "logit_bias": st.dictionaries(st.integers(0, 270) | NUMBERS, VALUES, max_size=3) | JUNK,
    "mixture": st.dictionaries(st.sampled_from(["one", "full", "three", 5]), WEIGHTS, max_size=3) | JUNK,
    "stop": st.lists(st.text(max_size=3) | VALUES, max_size=3) | VALUES,
    "stream_options": st.fixed_dictionaries({"include_usage": VALUES}) | JUNK,
    "chat_template_kwargs": JUNK,
    "answer_prefix": st.lists(st.integers(0, 270) | VALUES, max_size=4) | JUNK,
}  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)


@st.composite
def parameters(draw):
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4, unique=True))
    return {name: draw(FIELDS[name]) for name in names}


class Neighbor:
    """A request that decodes all the time."""

    REQUEST = request(
        [5, 6, 7], {"one": 1.0}, SamplingParams(seed=5, logit_bias={0: -100.0}), 60, speculation=2
    )

    def __init__(self, engine):
        self._engine = engine
        self._start()
        wait_until(lambda: self._recorder.ended)
        self._text = self._recorder.text
        self._start()

    def check(self):
        """What has been decoded is what is decoded alone; decode again, if it is complete."""
        ended, recorder = self._recorder.ended, self._recorder
        assert not isinstance(recorder.events[-1], Failed), recorder.events[-1].error
        assert self._text.startswith(recorder.text)
        if ended:
            assert recorder.text == self._text
            self._start()

    def finish(self):
        wait_until(lambda: self._recorder.ended)
        self.check()

    def _start(self):
        self._recorder = Recorder()
        self._engine.submit(self.REQUEST, self._recorder)
        wait_until(lambda: self._recorder.events)


def leaves(value):
    """The single values of a parameter."""
    if isinstance(value, dict):
        return [leaf for pair in value.items() for each in pair for leaf in leaves(each)]
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def named(message, parameters):
    """Whether a message names one of the parameters, and one of the values that it has."""
    for name, value in parameters.items():
        spellings = [shown(leaf) for leaf in [value, *leaves(value)]]
        spellings += [repr(float(leaf)) for leaf in leaves(value) if isinstance(leaf, int) and leaf < 10**300]
        subjects = ("mixture", "weight", "behavior") if name == "mixture" else (name,)
        if any(s in message for s in subjects) and any(s in message for s in spellings):
            return True
    return False


def streamed(llm):
    return lambda content, **parameters: list(llm.stream(content, **parameters))


def refused_by(kind, work):
    """The error of this kind that some work raises, or None."""
    try:
        work()
    except kind as error:
        return error
    return None


@pytest.fixture(scope="module")
def model_settings(settings):
    options = {"kv_cache_tokens": 4096}
    return {**settings, "max_tokens": 6, "allow_negative_weights": True, "engine_options": options}


@pytest.mark.parametrize("examples", [10, *slow(40 * FUZZ)])
def test_a_call_is_answered_or_refused_and_its_neighbor_does_not_notice(model_settings, examples):
    llm = EFTChatModel(**model_settings)
    neighbor = Neighbor(llm.engine)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=TEXTS, parameters=parameters(), run=st.sampled_from([llm.invoke, streamed(llm)]))
    def call(content, parameters, run):
        refusal = refused_by(ModelError, lambda: run(content, **parameters))
        neighbor.check()
        if refusal is None:
            return
        lone = any("\ud800" <= character <= "\udfff" for character in content)
        assert isinstance(refusal, EngineError)
        assert not isinstance(refusal, DecodingError), refusal
        assert named(str(refusal), parameters) or (lone and "surrogate" in str(refusal)), refusal

    call()
    neighbor.finish()


@pytest.mark.parametrize("examples", [10, *slow(40 * FUZZ)])
def test_a_model_is_built_or_refused(model_settings, examples):
    fields = set(EFTChatModel.model_fields) & set(FIELDS)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(parameters=parameters())
    def build(parameters):
        given_fields = {name: value for name, value in parameters.items() if name in fields}
        refusal = refused_by(ValidationError, lambda: EFTChatModel(**{**model_settings, **given_fields}))
        assert refusal is None or given_fields

    build()
