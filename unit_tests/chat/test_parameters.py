"""Parameters of a call become the engine's request."""

import pytest

from langchain_eft import EFTLLM
from langchain_eft.chat.parameters import CALL_PARAMETERS, refuse_unknown
from langchain_eft.chat.prompts import Prompts
from langchain_eft.engine.errors import RequestError
from unit_tests.chat.prepared import DECODING

PROMPTS = Prompts((1, 2), {"guided": (1, 2, 3)})


def test_a_request_has_the_prompts_and_the_parameters():
    request = DECODING.request(PROMPTS, room=100, trace=True)
    assert (request.prompt_ids, dict(request.contexts)) == ((1, 2), {"guided": (1, 2, 3)})
    assert (request.max_tokens, request.trace) == (64, True)
    assert PROMPTS.lengths == [2, 3]


@pytest.mark.parametrize(("shrink", "room", "expected"), [(True, 9, 9), (True, -5, 1), (False, 9, 64)])
def test_only_a_default_length_shrinks(shrink, room, expected):
    assert DECODING.model_copy(update={"shrink": shrink}).request(PROMPTS, room).max_tokens == expected


def test_requests_without_a_seed_draw_their_own():
    seeds = {DECODING.request(PROMPTS, 9).sampling.seed for _ in range(3)}
    assert len(seeds) == 3
    assert DECODING.model_copy(update={"sampling": {"seed": 4}}).request(PROMPTS, 9).sampling.seed == 4


def test_a_value_that_does_not_fit_is_named():
    with pytest.raises(RequestError, match="temperature=-1"):
        DECODING.model_copy(update={"sampling": {"temperature": -1}}).request(PROMPTS, 9)


def test_fields_of_the_model_stand_in_for_parameters():
    llm = EFTLLM(temperature=0.5, stop=["a"], timeout=3, upscale_strength=2.0)
    default = llm.decoding_parameters(None, {})
    assert (default.stop, default.timeout, default.sampling["temperature"]) == (("a",), 3, 0.5)
    assert default.upscale_strength == 2.0
    assert default.shrink
    called = llm.decoding_parameters(["b"], {"timeout": None, "max_tokens": 7, "mixture": {"pirate": 1.0}})
    assert (called.stop, called.timeout, called.max_tokens, called.shrink) == (("b",), None, 7, False)
    assert called.mixture.weights == {"pirate": 1.0}


def test_an_unknown_name_is_refused_with_a_similar_one():
    refuse_unknown({"stop", "seed"}, CALL_PARAMETERS, "a call")
    with pytest.raises(RequestError, match=r"'temprature' for a call\. Did you mean 'temperature'"):
        refuse_unknown({"temprature"}, CALL_PARAMETERS, "a call")


def test_many_long_unknown_names_cost_and_say_no_more_than_a_few():
    names = {f"{number}" + "x" * 10_000 for number in range(1000)}
    with pytest.raises(RequestError, match=r"and 900 more for a call\. Allowed are") as refused:
        refuse_unknown(names, CALL_PARAMETERS, "a call")
    assert len(str(refused.value)) < 30_000
