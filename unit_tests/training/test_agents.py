"""What is measured of agents: the right calls, and answers that hold their results."""

import pytest
from langchain_core.messages import AIMessage

from training.smol.agents import TOOLS, calls_of, results_of, tasks, told


def called(*calls):
    return AIMessage(
        "", tool_calls=[{"name": name, "args": args, "id": str(i)} for i, (name, args) in enumerate(calls)]
    )


def test_tasks_name_all_values_of_their_calls():
    made = tasks(seed=3)
    assert made == tasks(seed=3) != tasks(seed=4)
    assert {name for task in made for name, _ in task.calls} == set(TOOLS)
    for task in made:
        assert all(str(value) in task.request for _, given in task.calls for value in given.values())
        assert calls_of(called(*task.calls)) == list(task.calls)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The results are 42 and 72.", 2),
        ("The result is 42.", 1),
        ("I do not know.", 0),
        ("multiply failed: 42 and 72", 0),
    ],
)
def test_an_answer_tells_results_and_no_failure(text, number):
    results = results_of(called(("multiply", {"a": 6, "b": 7}), ("multiply", {"a": 8, "b": 9})))
    assert told(AIMessage(text), results) == number


def test_an_answer_that_calls_again_tells_nothing():
    call = called(("count_letters", {"word": "four"}))
    again = AIMessage("It is 4.", tool_calls=call.tool_calls)
    assert told(again, results_of(call)) == 0
