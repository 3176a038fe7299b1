"""What a call's parameters make of it: the grammar, what the model is told, and how its answer is read."""

import pytest
from langchain_core.messages import SystemMessage
from transformers import AddedToken

from langchain_eft.chat.answer_form import normalize_form
from langchain_eft.chat.output_parser import Content, Reasoning, ToolCallPart
from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import TextDelta
from unit_tests import tiny
from unit_tests.chat.prepared import DECODING, prepared

TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
    }
]
SCHEMA = {
    "title": "Verdict",
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "Verdict", "schema": SCHEMA}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"n": 3}}\n</tool_call>'
OBJECT = '{"good": true}'


def tokenizer(*, thinks=False, opened=False, tagged=False):
    made = tiny.tokenizer()
    if tagged:
        made.add_tokens([AddedToken(tag, special=False) for tag in TAGS])
    template = "{{ tools or '' }}{# <tool_call> #}" + tiny.TEMPLATE
    if thinks:
        template += "{# <think> #}"
    made.chat_template = template + ("{{ '<think>\n' }}" if opened else "")
    return made


def admits(words, grammar, text) -> bool:
    state = Grammars(words, len(words), {words.eos_token_id}).compile(grammar)
    for token in words(text).input_ids:
        if not state.mask()[token]:
            return False
        state.consume(token)
    return bool(state.mask()[words.eos_token_id])


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(
    ("parameters", "answer", "wrong"),
    [
        ({"tools": TOOLS, "tool_choice": "any"}, CALL, "Hello."),
        ({"response_format": FORMAT}, OBJECT, '{"good": 1}'),
        ({"tools": TOOLS, "strict": True}, CALL, CALL.replace("3", '"3"')),
        ({"tools": TOOLS, "response_format": FORMAT}, CALL, '{"bad": 1}'),
    ],
)
def test_models_that_think_may_do_so_before_what_is_enforced(tagged, parameters, answer, wrong):
    words = tokenizer(thinks=True, tagged=tagged)
    call = prepared(words, **parameters)
    thought = "<think>\nhm {n} 日本\n</think>\n\n"
    assert admits(words, call.only_request.grammar, answer)
    assert admits(words, call.only_request.grammar, thought + answer)
    assert not admits(words, call.only_request.grammar, wrong)
    assert not admits(words, call.only_request.grammar, thought + wrong)
    parser = call.new_parser()
    deltas = [*parser.feed(thought + answer), *parser.flush()]
    assert isinstance(deltas[0], Reasoning)
    assert isinstance(deltas[1], ToolCallPart if answer == CALL else Content)
    opened = tokenizer(opened=True, tagged=tagged)
    call = prepared(opened, **parameters)
    assert admits(opened, call.only_request.grammar, thought.removeprefix("<think>") + answer)
    assert not admits(opened, call.only_request.grammar, answer)
    parser = call.new_parser()
    assert parser.feed(thought.removeprefix("<think>"))[0] == Reasoning("hm {n} 日本")


@pytest.mark.parametrize("thinks", [False, True])
def test_a_call_that_the_model_begins_freely_is_held_to_its_schema(thinks):
    words = tokenizer(thinks=thinks)
    grammar = prepared(words, tools=TOOLS).only_request.grammar
    text = "Three < four, {n} 日本."
    for answer in (text, CALL, f"{text}\n{CALL}", f"{CALL}\n{CALL}"):
        assert admits(words, grammar, answer)
    for other in (CALL.replace("3", '"3"'), CALL.replace('"n"', '"m"'), CALL.replace('"f"', '"g"')):
        assert not admits(words, grammar, other)
        assert not admits(words, grammar, f"{text}\n{other}")


def test_calls_are_free_where_they_cannot_be_held_or_nobody_wants_it():
    words, prompted = tokenizer(), tokenizer()
    prompted.chat_template = tiny.TEMPLATE
    begun = DECODING.model_copy(update={"answer_prefix": (1,)})
    unenforceable = {"type": "object", "properties": {"n": {"type": "string", "pattern": "(?=a)b"}}}
    odd = [*TOOLS, {"type": "function", "function": {"name": "odd", "parameters": unenforceable}}]
    for call in (
        prepared(words, tools=TOOLS, strict=False),
        prepared(words, tools=TOOLS, tool_choice="none"),
        prepared(words, tools=odd),
        prepared(words, tools=TOOLS, holds_calls=False),
        prepared(words, tools=TOOLS, decoding=begun),
        prepared(prompted, tools=TOOLS),
    ):
        assert call.only_request.grammar is None
    with pytest.raises(RequestError, match="The schema of 'odd' cannot be enforced"):
        prepared(words, tools=odd, strict=True)


def test_the_schema_is_told_behind_the_system_messages():
    words = tokenizer()
    call = prepared(words, [SystemMessage("Be brief."), "hi"], response_format=FORMAT)
    prompt = words.decode(call.only_request.prompt_ids)
    assert "<system> Be brief.\n\nRespond only with a JSON object that matches this JSON schema:\n{" in prompt
    plain = prepared(words, response_format={"type": "json_object"})
    assert "JSON" not in words.decode(plain.only_request.prompt_ids)


def test_a_call_or_an_object_is_the_models_free_choice():
    words = tokenizer()
    fork = prepared(words, tools=TOOLS, response_format=FORMAT).fork
    for beginning in ("<tool_call>\n{", "\n<tool", "<"):
        assert admits(words, fork.grammar(beginning), CALL)
        assert not admits(words, fork.grammar(beginning), OBJECT)
    for beginning in ("The result is", '{"good"', "", "<b>"):
        assert admits(words, fork.grammar(beginning), OBJECT)
        assert not admits(words, fork.grammar(beginning), CALL)
    assert prepared(words, tools=TOOLS).fork is None
    assert prepared(words, tools=TOOLS, tool_choice="any", response_format=FORMAT).fork is None
    assert prepared(words, tools=[], response_format=FORMAT).fork is None
    assert prepared(tokenizer(thinks=True), tools=TOOLS, response_format=FORMAT).fork is None


def test_a_normalized_form_stays_as_it_is():
    form = {"tools": [{"name": "g", "parameters": SCHEMA}], "tool_choice": True, "response_format": SCHEMA}
    normalized = normalize_form(form)
    assert normalize_form(normalized) == normalized
    assert normalized["tool_choice"] == "any"
    assert normalized["response_format"] == FORMAT


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(RequestError, match=r"'f' 2 times"):
        prepared(tokenizer(), tools=[*TOOLS, *TOOLS])


def test_answers_differ_by_their_seed_alone():
    call = prepared(tokenizer(), n=3)
    first, *others = call.requests
    seeds = [request.sampling.seed - first.sampling.seed for request in others]
    assert seeds == [1, 2]
    with pytest.raises(RequestError, match="n=3 answers cannot be streamed"):
        _ = call.only_request


def test_probes_are_short_free_answers_that_decide_the_grammar():
    call = prepared(tokenizer(), tools=TOOLS, response_format=FORMAT, n=2)
    assert [(probe.grammar, probe.max_tokens) for probe in call.probes()] == [(None, 4)] * 2
    beginnings = [[TextDelta("<tool", (1,), ("<tool",))], [TextDelta("It", (1,), ("It",))]]
    grammars = [request.grammar for request in call.decided(beginnings).requests]
    assert grammars == [call.fork.calls, call.fork.answer]
