"""Images and other media become a line of text, or are refused."""

import base64

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_eft import EFTChatModel, EFTRewardScorer
from langchain_eft.chat.media import readable
from langchain_eft.chat.messages import text

DATA = base64.b64encode(bytes(24_000)).decode()
URL = "https://example.org/cat.png"


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({"type": "image", "base64": DATA, "mime_type": "image/png"}, "[image, image/png, 24 kB: left out"),
        ({"type": "image", "url": URL}, f"[image, {URL}: left out"),
        (
            {"type": "file", "base64": DATA, "mime_type": "application/pdf", "filename": "a.pdf"},
            "[file, application/pdf, a.pdf, 24 kB: left out",
        ),
        ({"type": "audio", "file_id": "f-1"}, "[audio, f-1: left out"),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
            "[image_url, image/png, 24 kB: left out",
        ),
        ({"type": "image_url", "image_url": URL}, f"[image_url, {URL}: left out"),
        (
            {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
            "[input_audio, wav, 24 kB: left out",
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": DATA}},
            "[image, image/jpeg, 24 kB: left out",
        ),
        (
            {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
            "[image, image/png, 24 kB: left out",
        ),
        ({"type": "media", "data": DATA, "mime_type": "video/mp4"}, "[media, video/mp4, 24 kB: left out"),
    ],
)
def test_a_medium_becomes_one_line_that_says_what_it_was(block, line):
    (message,) = readable([HumanMessage(["What is this?", block, "Look."])], "describe")
    before, description, after = text(message).split("\n")
    assert (before, after) == ("What is this?", "Look.")
    assert description.startswith(line)
    assert description.endswith("reads text only]")
    assert DATA not in description


def test_text_blocks_of_every_form_stay_as_they_are():
    blocks = ["a", {"type": "text", "text": "b"}, {"type": "text-plain", "text": "c"}]
    thinking = {"type": "thinking", "thinking": "hm"}
    messages = [HumanMessage(blocks), AIMessage([thinking, {"type": "text", "text": "d"}])]
    assert readable(messages, "describe") == messages
    assert [text(message) for message in messages] == ["abc", "d"]


def test_names_of_any_length_take_one_line():
    (message,) = readable([HumanMessage([{"type": "file", "filename": "x" * 9000}])], "describe")
    assert len(text(message)) < 400


SCREENSHOT = ToolMessage(
    [{"type": "text", "text": "Done."}, {"type": "image", "base64": DATA, "mime_type": "image/png"}],
    tool_call_id="1",
)
CONVERSATION = [
    HumanMessage("Take a screenshot."),
    AIMessage("", tool_calls=[{"name": "shoot", "args": {}, "id": "1"}]),
    SCREENSHOT,
]


def test_an_agent_goes_on_after_a_screenshot(tool_settings):
    llm = EFTChatModel(**{**tool_settings, "max_tokens": 4})
    prompt = llm.engine.tokenizer.decode(llm.prepare_call(CONVERSATION).only_request.prompt_ids)
    assert "Done.\n[image, image/png, 24 kB: left out" in prompt
    answer = llm.invoke(CONVERSATION)
    assert answer.usage_metadata["input_tokens"] < 1000  # without the picture's data
    counted = llm.get_num_tokens_from_messages(CONVERSATION)
    assert 0 < answer.usage_metadata["input_tokens"] - counted < 20  # the answer's opening
    assert len(EFTRewardScorer(llm, "one").invoke({"prompt": CONVERSATION, "answers": ["a", "b"]})) == 2


def test_media_can_be_refused(tool_settings):
    llm = EFTChatModel(**tool_settings, unsupported_content="error")
    for messages in (CONVERSATION, [HumanMessage([{"type": "image", "url": URL}])]):
        for call in (llm.invoke, llm.get_num_tokens_from_messages):
            with pytest.raises(ModelInvalidRequestError, match=r"'image'.*unsupported_content='describe'"):
                call(messages)
