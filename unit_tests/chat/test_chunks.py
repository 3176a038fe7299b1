"""Events become chunks, and the tokens of reasoning are counted from the engine's own pieces of text."""

from dataclasses import replace

import pytest
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_eft.chat.chunks import ChunkBuilder, chat_result
from langchain_eft.chat.output_parser import OutputParser
from langchain_eft.chat.tool_formats import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PROMPTED
from langchain_eft.engine.events import Finished, TextDelta, TokenLogprobs
from langchain_eft.engine.request import GenerationRequest
from unit_tests import tiny

END = Finished(
    reason="stop", prompt_tokens=3, completion_tokens=6, cached_tokens=1, drafted_tokens=0,
    accepted_tokens=0, verify_passes=6, time_to_first_token=0.1, seconds=0.2,
)  # fmt: skip


def builder(form=HERMES, prefix=(), **options):
    parser = OutputParser(form, tools=True, reasoning=True, **options)
    request = GenerationRequest(prompt_ids=(1,), answer_prefix=prefix)
    return ChunkBuilder(request, parser, tiny.tokenizer(), "org/base")


def events(pieces, end=END):
    return [*(TextDelta(piece, (i,), (piece,)) for i, piece in enumerate(pieces)), end]


def message(pieces, end=END, **options):
    return chat_result([builder(**options)], [events(pieces, end)]).generations[0].message


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        (["<think>", "a", " b", "</think>", "c", ""], 3),
        (["<think>", "", "日", "</think>", "c", ""], 3),  # a character of two tokens
        (["<think>a", "</think>b", "", "", "", ""], 1),
    ],
)
def test_reasoning_is_counted_up_to_its_last_token(pieces, tokens):
    answer = message(pieces)
    assert answer.usage_metadata["output_token_details"]["reasoning"] == tokens
    assert answer.additional_kwargs["reasoning_content"]


def test_an_answer_without_reasoning_counts_none():
    answer = message(["a", "b", "", "", "", ""])
    assert answer.content == "ab"
    assert "output_token_details" not in answer.usage_metadata


def test_reasoning_that_the_prompt_has_opened_is_counted():
    answer = message(["a", "b", "</think>", "c", "", ""], thinking=True)
    assert answer.usage_metadata["output_token_details"]["reasoning"] == 2
    assert answer.content == "c"


@pytest.mark.parametrize(("given", "drawn"), [(0, 3), (2, 1), (3, 0), (5, 0)])
def test_only_reasoning_that_was_drawn_is_counted(given, drawn):
    pieces = ["<think>", "a", " b", "</think>", "c", ""]
    beginning = TextDelta("".join(pieces[:given]), tuple(range(given)), tuple(pieces[:given]))
    told = [beginning, *events(pieces[given:])]
    answer = chat_result([builder(prefix=tuple(range(given)))], [told]).generations[0].message
    assert answer.usage_metadata["output_token_details"]["reasoning"] == drawn
    assert (answer.additional_kwargs["reasoning_content"], answer.content) == ("a b", "c")


def test_log_probabilities_name_their_tokens():
    delta = TextDelta("a", (68,), ("a",), (TokenLogprobs(-0.5, ((68, -0.5), (70, -1.5))),))
    answer = chat_result([builder()], [[delta, END]]).generations[0].message
    (entry,) = answer.response_metadata["logprobs"]["content"]
    assert (entry["token_id"], [top["token_id"] for top in entry["top_logprobs"]]) == (68, [68, 70])
    assert entry["token"] == tiny.tokenizer().decode([68])


@pytest.mark.slow
@pytest.mark.parametrize("form", [HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PROMPTED])
@pytest.mark.parametrize("reason", ["length", "stop"])
def test_a_call_in_which_the_answer_ends_is_never_complete(form, reason):
    """LangChain itself closes the brackets of what it has, so that half a call would look whole."""
    args = {"a": 'q"\\{', "b": [1, {"c": None}], "d": {}, "e": "[é"}
    text = form.render([("look", args)])
    complete = text.index("[é") + len('[é"}')
    for end in range(1, len(text)):
        pieces = events(text[:end], replace(END, reason=reason))
        whole = chat_result([builder(form)], [pieces]).generations[0].message
        maker = builder(form)
        streamed = add_ai_message_chunks(*(chunk.message for event in pieces for chunk in maker.feed(event)))
        for answer in (whole, streamed):
            assert [call["args"] for call in answer.tool_calls] == ([args] if end >= complete else [])
            assert answer.response_metadata["finish_reason"] in (reason, "tool_calls")
        begun = [bad["args"] for bad in streamed.invalid_tool_calls]
        assert [bad["args"] for bad in whole.invalid_tool_calls] == begun
        blocks = [block for block in streamed.content_blocks if block["type"] == "invalid_tool_call"]
        assert [block["args"] for block in blocks] == begun
        if complete > end > text.index("{", text.index("look")) and not form.untagged:
            assert begun


@pytest.mark.parametrize(
    ("pieces", "reason", "normalized"),
    [
        (["a", "b"], "stop", "stop"),
        (["a", "b"], "length", "length"),
        (['<tool_call>{"name": "add", "arguments": {}}', "</tool_call>"], "stop", "tool_call"),
    ],
)
def test_the_finish_reason_is_also_given_in_langchains_words(pieces, reason, normalized):
    metadata = message(pieces, end=replace(END, reason=reason)).response_metadata
    assert metadata["normalized_finish_reason"] == normalized
    assert metadata["finish_state"] == "complete"
