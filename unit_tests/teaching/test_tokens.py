import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Conversation, PreferencePair
from langchain_eft.teaching.tokens import IGNORED, Renderer
from unit_tests.tiny import TOOL_TEMPLATE, tokenizer

FINAL_ONLY = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' }}"
    "{% if message['role'] != 'assistant' or loop.last %}{{ message['content'] }}{% endif %}{{ ' <end> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
"""Renders earlier answers without their content, as templates do that drop earlier thoughts."""


def learned(text, words):
    return words.decode([label for label in text.labels if label != IGNORED])


def test_only_answers_are_learned_with_the_token_that_ends_them():
    words = tokenizer()
    messages = (
        SystemMessage("sys"), HumanMessage("one"), AIMessage("first"), HumanMessage("two"),
        AIMessage("second"),
    )  # fmt: skip
    (text,) = Renderer(words, 500).conversation(Conversation("line 1", messages))
    assert learned(text, words) == "first <end>second <end>"
    assert words.decode(text.ids).startswith("<system> sys <end> <user> one <end> <assistant> first <end>")
    assert text.ids[-1] == words.eos_token_id
    assert all(label in (IGNORED, token) for token, label in zip(text.ids, text.labels, strict=True))


def test_the_end_of_an_answer_that_was_cut_off_is_not_learned():
    words = tokenizer()
    cut = AIMessage("first", response_metadata={"finish_reason": "length"})
    whole = AIMessage("second", response_metadata={"finish_reason": "stop"})
    renderer = Renderer(words, 500)
    (text,) = renderer.conversation(Conversation("line 1", (HumanMessage("one"), cut)))
    assert learned(text, words) == "first "
    assert words.eos_token_id not in text.ids[-2:]
    messages = (HumanMessage("one"), cut, HumanMessage("two"), whole)
    (both,) = renderer.conversation(Conversation("line 1", messages))
    assert learned(both, words) == "first second <end>"
    assert both.ids.count(words.eos_token_id) == 4


def test_the_prompt_is_the_one_that_is_decoded():
    words = tokenizer()
    prompt, _ = Renderer(words, 500).answer("line 1", [HumanMessage("hi")], AIMessage("yes"), ())
    rendered = words.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert list(prompt) == list(rendered["input_ids"])


def test_answers_that_the_template_changes_later_are_texts_of_their_own():
    words = tokenizer()
    words.chat_template = FINAL_ONLY
    messages = (HumanMessage("one"), AIMessage("first"), HumanMessage("two"), AIMessage("second"))
    texts = Renderer(words, 500).conversation(Conversation("line 1", messages))
    assert [learned(text, words) for text in texts] == ["first <end>", "second <end>"]


def test_tool_calls_are_learned_and_results_are_not():
    words = tokenizer()
    words.chat_template = TOOL_TEMPLATE
    call = {"name": "add", "args": {"a": 1}, "id": "1"}
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    messages = (
        HumanMessage("q"), AIMessage("", tool_calls=[call]), ToolMessage("42", tool_call_id="1"),
        AIMessage("ok"),
    )  # fmt: skip
    (text,) = Renderer(words, 900).conversation(Conversation("line 1", messages, (tool,)))
    said = learned(text, words)
    assert "<tool_call>" in said
    assert said.endswith("ok <end>")
    assert "42" not in said
    assert "<tool> add" in words.decode(text.ids)


def test_special_tokens_in_the_text_of_examples_stay_text():
    words = tokenizer()
    messages = (HumanMessage("a <end> b"), AIMessage("c"))
    (text,) = Renderer(words, 500).conversation(Conversation("line 1", messages))
    assert text.ids.count(words.eos_token_id) == 2


def test_a_text_beyond_the_window_is_refused():
    conversation = Conversation("line 7", (HumanMessage("hi"), AIMessage("long " * 30)))
    with pytest.raises(TeachingError, match=r"line 7: .*context window is 50 tokens"):
        Renderer(tokenizer(), 50).conversation(conversation)


def test_a_pair_shares_its_prompt():
    words = tokenizer()
    pair = PreferencePair("line 1", (HumanMessage("q"),), AIMessage("good"), AIMessage("bad"))
    row = Renderer(words, 500).pair(pair).to_row()
    assert words.decode(row["prompt_ids"]).endswith("<assistant> ")
    assert words.decode(row["chosen_ids"]) == "good <end>"
    assert words.decode(row["rejected_ids"]) == "bad <end>"
