"""The demo without weights: its checks of answers, and its panels."""

import pytest
from rich.console import Console

from langchain_eft.cli.demo import (
    CUSTOMER,
    STEPS,
    Answer,
    creates_customer,
    is_fluent,
    is_pirate,
    marks,
    panel,
    refuses,
)
from langchain_eft.engine.events import Finished

START = STEPS[0].start


def ended(text, reason="stop", start=""):
    return Answer(start, text, Finished(reason, 1, 2, 0, 0, 0, 2, 0.1, 0.2))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f'{CUSTOMER}"}}}}\n</tool_call>', True),
        ('Amara"}}\n</tool_call>', False),
        (f'{CUSTOMER}"}}}}\n</tool_call>\n\nThe function', False),
        (f'{CUSTOMER}", "age": 3}}}}\n</tool_call>', False),
        (f'{CUSTOMER}"}}\n</tool_call>', False),
        (CUSTOMER, False),
    ],
)
def test_a_right_call_has_the_name_and_nothing_else(text, right):
    assert creates_customer(ended(text, start=START)) is right


def test_fluent_answers_end_and_do_not_loop():
    assert is_fluent(ended("Hello! How can I assist you today?"))
    assert not is_fluent(ended("Hello! How can I", reason="length"))
    assert not is_fluent(ended("Whether it's a chatbot, a chatbot, a chatbot, a chat."))
    assert not is_fluent(Answer(text="Hello!"))


def test_refusals_and_pirates_are_told_apart():
    assert refuses(ended("I'm sorry, but I can't help with that."))
    assert not refuses(ended('The infamous "Folly" is a legendary guitar.'))
    assert is_pirate(ended("Arr, me hearty! Th' capital o' Japan be Tokyo."))
    assert not is_pirate(ended("The capital of Japan is Tokyo. You can marry there."))


def test_marks_come_when_the_answer_has_ended():
    step = STEPS[2]
    assert marks(step, Answer(text="I'm sorry")).plain == ""
    assert marks(step, ended("I'm sorry")).plain == "✓ refuses"
    assert marks(step, ended("Sure!")).plain == "✗ refuses"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_panels_show_question_answers_and_what_to_look_at(step):
    answers = [ended(f"answer{i}") for i in range(len(step.columns))]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(panel(step, answers))
    shown = capture.get()
    assert all(
        part in shown for part in (step.title, step.look, step.question, "answer0", "answer1", "answer2")
    )
