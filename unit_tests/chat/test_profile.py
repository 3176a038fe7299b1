"""What LangChain's model profile says, by local files alone."""

import json

import pytest
from langchain_core.language_models.model_profile import ModelProfile

from langchain_eft import BehaviorDelta, EFTChatModel
from unit_tests.chat.test_messages import ALTERNATING, EARLY_SYSTEM, LOOP

REASONING = "{% if '</think>' in '' %}{% endif %}" + LOOP
GATHERED = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
)


@pytest.fixture
def folder_of(tmp_path):
    """Makes a folder of some files."""

    def make(**files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content)
        return str(folder)

    return make


def test_all_fields_are_langchains(settings):
    assert set(EFTChatModel(**settings).profile) <= set(ModelProfile.__annotations__)


def test_prompt_and_answer_share_the_window(settings):
    profile = EFTChatModel(**settings).profile
    assert (profile["max_input_tokens"], profile["max_output_tokens"]) == (1024, 1023)


def test_media_are_not_read_anywhere(settings):
    profile = EFTChatModel(**settings).profile
    media = ("image_inputs", "image_url_inputs", "pdf_inputs", "image_tool_message", "pdf_tool_message")
    assert not any(profile[field] for field in media)


@pytest.mark.parametrize(
    ("template", "reasons", "keeps_place"),
    [
        (LOOP, False, True),
        (REASONING, True, True),
        (GATHERED, False, False),
        (EARLY_SYSTEM, False, False),
        (ALTERNATING, False, False),
    ],
)
def test_the_template_says_whether_it_reasons_and_where_system_messages_stand(
    folder_of, template, reasons, keeps_place
):
    for folder in (
        folder_of(chat_template__jinja=template),
        folder_of(tokenizer_config__json=json.dumps({"chat_template": template})),
    ):
        profile = EFTChatModel(model=folder).profile
        assert profile["reasoning_output"] == reasons
        assert profile["mid_conversation_system_messages"] == keeps_place


def test_the_template_is_the_one_that_loading_would_choose(folder_of):
    base = folder_of(chat_template__jinja=LOOP)
    for adapter, reasons in (
        (folder_of(), False),
        (folder_of(chat_template__jinja=REASONING), True),
    ):
        house = {"house": BehaviorDelta(adapter=adapter, reference="org/small")}
        assert EFTChatModel(model=base, behaviors=house).profile["reasoning_output"] == reasons


def test_what_no_local_file_states_is_left_out(folder_of):
    remote = {"chat": BehaviorDelta(tuned="org/tuned", reference="org/small")}
    profile = EFTChatModel(model=folder_of(chat_template__jinja=LOOP), behaviors=remote).profile
    for field in ("max_input_tokens", "max_output_tokens", "reasoning_output"):
        assert field not in profile


def test_the_bundled_family_is_described_in_full():
    profile = EFTChatModel().profile
    assert profile["mid_conversation_system_messages"]
    assert not profile["reasoning_output"]
