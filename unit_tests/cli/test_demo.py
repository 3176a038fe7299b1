"""The demo without weights: its checks of answers, its one batch, and its panels."""

import asyncio

import pytest
from langchain_core.messages import AIMessage
from rich.console import Console

from langchain_eft.cli.demo import PIRATE, STEPS, answer_all, calls, ended, panel, refuses, says, tour


def answered(text="", reason="stop", **arguments):
    called = [{"name": "get_weather", "args": arguments, "id": "1"}] if arguments else []
    return AIMessage(text, tool_calls=called, response_metadata={"finish_reason": reason})


class Echo:
    """Answers with its call, once all calls of the tour have come."""

    def __init__(self, expected):
        self.calls, self._expected, self._all = [], expected, asyncio.Event()

    def bind_tools(self, tools):
        return self

    async def ainvoke(self, question, **settings):
        self.calls.append((question, settings))
        if len(self.calls) == self._expected:
            self._all.set()
        await self._all.wait()
        return answered(f"{question} {settings['mixture']}")


async def test_all_answers_of_the_tour_are_asked_for_at_once():
    told, columns = [], [column for step in STEPS for column in step.columns]
    llm = Echo(len(columns))
    answers = await answer_all(llm, STEPS, told.append)
    assert [answer.text for row in answers for answer in row] == [
        f"{step.question} {dict(column.mixture)}" for step in STEPS for column in step.columns
    ]
    assert {settings["upscale_strength"] for _, settings in llm.calls} == {0.0, 1.0}
    assert told == [f"{i} of {len(STEPS)} questions answered" for i in range(1, len(STEPS) + 1)]


def test_what_is_asked_for_may_stand_in_the_text_or_in_a_call():
    assert [calls(answer) for answer in (answered("Oslo"), answered(city="Oslo"))] == [False, True]
    assert [says("Oslo")(answer) for answer in (answered("Oslo"), answered(city="Oslo"))] == [True, True]
    assert not says("Oslo")(answered(city="Norak"))


def test_refusals_and_pirates_are_told_apart():
    assert refuses(answered("I'm sorry, but I can't help with that."))
    assert not refuses(answered('The infamous "Folly" is a legendary guitar.'))
    assert says(PIRATE)(answered("Arr, me hearty! Th' capital o' Japan be Tokyo."))
    assert not says(PIRATE)(answered("The capital of Japan is Tokyo. You can marry there."))
    assert [ended(answered(reason=reason)) for reason in ("stop", "tool_calls", "length")] == [
        True,
        True,
        False,
    ]


def shown(step, answers):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(panel(step, answers))
    return capture.get()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_panels_show_question_answers_and_what_to_look_at(step):
    text = shown(step, [answered(f"answer{i}") for i in range(len(step.columns))])
    assert all(
        part in text for part in (step.title, step.look, step.question, "answer0", "answer1", "answer2")
    )


def test_marks_say_what_is_right_or_wrong():
    text = shown(STEPS[0], [answered("Oslo"), answered(city="Norak"), answered("Hm", reason="length")])
    marks = ["✓ knows the city", "✗ calls nothing", "✓ calls the tool", "✗ wrong city"]
    assert [part for part in (*marks, "get_weather(city='Norak')", "Hm ...") if part not in text] == []


def test_the_tour_ends_with_what_to_do_next():
    console = Console(width=120)
    with console.capture() as capture:
        tour(STEPS, [[answered("a")] * 3 for _ in STEPS], console)
    assert capture.get().rstrip().endswith("type /mix pirate=0.7 concise=1.")
