"""Efforts of reasoning, as chat templates can ask for them."""

import pytest
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.chat.profile import model_profile
from langchain_eft.chat.reasoning_effort import effort_levels, effort_variables
from langchain_eft.engine.errors import RequestError
from unit_tests.scripted import MODEL, TEMPLATE, ScriptedEngine, installed

SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
THINKING = "{%- set thinking = thinking | default(false) %}{% generation %}{{ thinking }}{% endgeneration %}"
DEGREES = (
    "{% if not reasoning_effort %}{% set reasoning_effort = 'medium' %}{% endif %}{{ reasoning_effort }}"
)
SILENT = "{# enable_thinking #}{% for m in messages %}{{ m.thinking }}{{ m['reasoning_effort'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        (SWITCH, {"none": {"enable_thinking": False}, "high": {"enable_thinking": True}}),
        (THINKING, {"none": {"thinking": False}, "high": {"thinking": True}}),
        (DEGREES, {level: {"reasoning_effort": level} for level in ("low", "medium", "high")}),
        (SILENT, {}),
        ("{% broken", {}),
    ],
)
def test_efforts_are_the_templates_own_variables(template, variables):
    assert {level: effort_variables(template, level) for level in effort_levels(template)} == variables
    assert effort_variables(template, None) == {}
    assert model_profile("m", None, template).get("reasoning_effort_levels", []) == list(variables)


def test_a_template_with_both_is_switched_on_for_a_degree():
    both = SWITCH + DEGREES
    assert effort_levels(both) == ("none", "low", "medium", "high")
    assert effort_variables(both, "low") == {"enable_thinking": True, "reasoning_effort": "low"}


@pytest.mark.parametrize(
    ("template", "effort", "said"),
    [
        (SWITCH, "low", r"cannot ask for reasoning_effort='low'\. It knows 'high', 'none'"),
        (SILENT, "low", r"cannot ask for reasoning_effort='low'\. Leave it out"),
        (SWITCH, ["high"], r"reasoning_effort=\['high'\]"),
    ],
)
def test_an_effort_that_a_template_cannot_ask_for_is_refused(template, effort, said):
    with pytest.raises(RequestError, match=said):
        effort_variables(template, effort)


def test_a_calls_own_effort_goes_before_the_models():
    with installed(ScriptedEngine(lambda _: ["Yes."], TEMPLATE + SWITCH)):
        llm = EFTChatModel(model=MODEL, reasoning_effort="none")
        calls = [
            llm.prepare_call([HumanMessage("hi")], **parameters)
            for parameters in (
                {},
                {"reasoning_effort": "high"},
                {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            )
        ]
        prompts = [call.engine.tokenizer.decode(call.only_request.prompt_ids) for call in calls]
        assert llm.invoke("hi").content == "Yes."
    assert ["<think>" in prompt for prompt in prompts] == [True, False, True]
