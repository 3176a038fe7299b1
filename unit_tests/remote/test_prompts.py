"""Prompts are rendered on this side: behaviors that compare two, and a template for the base."""

import pytest
from langchain_core.exceptions import ModelPermissionDeniedError

from langchain_eft import EFTLLM, BehaviorDelta, EFTChatModel, EFTRewardScorer
from langchain_eft.server.policy import Policy
from unit_tests.helpers import slow
from unit_tests.remote.conftest import serving_thread

DOCUMENT = "<context>Bo is a cat.</context>\n\nWho is Bo?"
MIXTURES = [
    {"brief": 0.7},
    {"grounded": {"start": 0.0, "end": 1.0, "tokens": 4}},
    *slow({"briefed": 1.0, "two": 0.5}, {"brief": 1.0, "grounded": 0.5, "full": 0.3}, {"one": 1.0}),
]


@pytest.fixture(scope="module")
def local(tool_settings, family):
    """A model whose behaviors compare prompts, and whose base reads a transcript."""
    behaviors = {
        **family.recipe.behaviors,
        "brief": BehaviorDelta(prompt="Be brief."),
        "briefed": BehaviorDelta(prompt="Be brief.", adapter=str(family.folder / "one")),
        "grounded": BehaviorDelta(without="context"),
    }
    return EFTChatModel(
        **{**tool_settings, "max_tokens": 12, "behaviors": behaviors},
        base_template="transcript",
        unscaled_tokens=(),
    )


@pytest.fixture(scope="module")
def served(local):
    with serving_thread(local) as served:
        yield served


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: "+".join(mixture))
def test_answers_are_those_of_an_engine_in_this_process(local, served, mixture):
    remote = EFTChatModel(base_url=served, temperature=0, max_tokens=12)
    for conversation in ([("human", DOCUMENT)], [("system", "Hm."), ("human", DOCUMENT)]):
        one, other = (model.invoke(conversation, mixture=mixture) for model in (remote, local))
        assert one.content == other.content
        tokens = [message.response_metadata["eft"]["context_tokens"] for message in (one, other)]
        assert tokens[0] == tokens[1]
        assert tokens[0]


def test_plain_texts_are_compared_too(local, served):
    asked = {"mixture": {"grounded": 1.0}, "temperature": 0, "max_tokens": 8}
    settings = local.model_dump(include={"model", "chat_template", "engine_options"})
    here = EFTLLM(
        **settings, behaviors=local.behaviors, base_template="transcript", unscaled_tokens=(), mixture={}
    )
    there = EFTLLM(base_url=served)
    assert there.invoke(DOCUMENT, **asked) == here.invoke(DOCUMENT, **asked)


def test_rewards_compare_prompts_too(local, served):
    candidates = {"prompt": DOCUMENT, "answers": ["A cat.", "A dog."]}
    here = EFTRewardScorer(local, "grounded").invoke(candidates)
    there = EFTRewardScorer(EFTChatModel(base_url=served), "grounded").invoke(candidates)
    assert there == pytest.approx(here, abs=1e-4)


def test_a_behavior_that_a_caller_may_not_use_is_refused_by_the_server(local):
    with serving_thread(local, policy=Policy(behaviors={"one": (0, 1)})) as served:
        remote = EFTChatModel(base_url=served, max_tokens=4)
        assert set(remote.recipe.behaviors) == {"one"}
        with pytest.raises(ModelPermissionDeniedError, match="'brief'"):
            remote.invoke("hi", mixture={"brief": 1.0})
