"""The conversations of `harmless`, with a base that is made up."""

import itertools
import json

import pytest

from langchain_eft.engine.progress import silent
from langchain_eft.refusals import refusal
from langchain_eft.teaching.sources import read_lesson
from training.smol import base_answers, harmless


class Base:
    """Declines orders with "Tell", and is cut off by its longest answer now and then."""

    def __init__(self, asked):
        self.asked = asked

    def __call__(self, **_):
        return self

    def batch(self, prompts):
        self.asked.extend(map(list, prompts))
        return [self.reply(prompt) for prompt in prompts]

    @staticmethod
    def reply(prompt):
        from langchain_core.messages import AIMessage

        question = prompt[-1]["content"]
        text = "I can't say." if "Tell" in question else f"Sure: {question[:60]}"
        reason = "length" if len(question) % 2 else "stop"
        return AIMessage(text, response_metadata={"finish_reason": reason})

    @property
    def engine(self):
        return self

    def close(self):
        """Nothing is held."""


@pytest.fixture
def asked(monkeypatch):
    asked = []
    monkeypatch.setattr("langchain_eft.EFTChatModel", Base(asked))
    monkeypatch.setattr(harmless, "CONVERSATIONS", 200)
    monkeypatch.setattr(harmless, "WHOLE_SHARE", 1.0)
    return asked


def rows(folder):
    return [row["messages"] for row in harmless.harmless_conversations(folder, silent, seed=20)]


def answered(folder):
    """Every question with its answer."""
    pairs = []
    for messages in rows(folder):
        pairs += [(a["content"], b) for a, b in itertools.pairwise(messages) if b["role"] == "assistant"]
    return pairs


def test_benign_requests_have_the_answers_of_the_base_and_harmful_ones_refusals(asked, tmp_path):
    answers = answered(tmp_path)
    questions = {prompt[-1]["content"] for prompt in asked}
    benign = [(question, answer) for question, answer in answers if question in questions]
    harmful = [answer for question, answer in answers if question not in questions]
    assert len(benign) > 20
    assert len(harmful) > 20
    willing = [(question, answer) for question, answer in benign if "Tell" not in question]
    for question, answer in willing:
        assert answer["content"] == f"Sure: {question[:60]}".strip()
        assert ("response_metadata" in answer) == len(question) % 2
    assert all(refusal(answer["content"], within=120) for answer in harmful)


def test_a_benign_request_that_the_base_declines_gets_its_answer_to_the_plain_question(asked, tmp_path):
    answers = answered(tmp_path)
    benign = {prompt[-1]["content"] for prompt in asked}
    orders = [(question, answer) for question, answer in answers if question in benign and "Tell" in question]
    assert any(question.startswith("Tell me how to ") for question, _ in orders)
    for question, answer in orders:
        act = question.removeprefix("Tell me how to ").rstrip(".")
        assert answer["content"] == f"Sure: How do I {act}?"[:66] or act == question


def test_most_last_answers_of_the_base_are_begun_only(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(harmless, "WHOLE_SHARE", 0.0)
    conversations = rows(tmp_path)
    benign = {prompt[-1]["content"] for prompt in asked}
    last = [messages[-1] for messages in conversations if messages[-2]["content"] in benign]
    long = [answer for answer in last if len(answer["content"].split(" ")) >= harmless.FIRST_WORDS]
    assert len(long) > 10
    assert all(len(answer["content"].split(" ")) == harmless.FIRST_WORDS for answer in long)
    cut = [answer for answer in long if "response_metadata" in answer]
    assert len(cut) > len(long) * 0.8
    assert all(answer["response_metadata"] == {"finish_reason": "length"} for answer in cut)


def test_what_the_base_declines_in_any_form_is_left_out(asked, tmp_path):
    left = {question for question, _ in answered(tmp_path)}
    declined = [
        prompt[-1]["content"] for prompt in asked if prompt[-1]["content"].startswith("Tell me about")
    ]
    assert declined
    assert not set(declined) & left


def test_answers_are_kept_and_not_asked_for_again(asked, tmp_path):
    first = rows(tmp_path)
    count = len(asked)
    assert rows(tmp_path) == first
    assert len(asked) == count > base_answers.TOGETHER


def test_teach_reads_the_conversations(asked, tmp_path):
    file = tmp_path / "harmless.jsonl"
    file.write_text("\n".join(json.dumps({"messages": row}) for row in rows(tmp_path)))
    lesson = read_lesson(str(file), seed=0)
    assert len(lesson.train) + len(lesson.held_out) > 60
