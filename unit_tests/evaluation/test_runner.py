"""The runner: what is asked, what is kept, what fails."""

import json
import threading
from dataclasses import asdict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_eft.evaluation import (
    HELPFULNESS,
    Answer,
    CallsExactly,
    Case,
    EvaluationError,
    Judge,
    Length,
    Mentions,
    PairwiseJudge,
    Runner,
    System,
    Task,
    load_task,
)
from langchain_eft.evaluation.cache import Cache
from langchain_eft.evaluation.systems import identity
from unit_tests.evaluation.scripted import Scripted, ToolUser, usage

FACTS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima"}
TASK = Task(
    "capitals",
    tuple(Case(country, (HumanMessage(f"Capital of {country}?"),), city) for country, city in FACTS.items()),
    (Mentions(), Length()),
    max_tokens=7,
)


def knows(*countries):
    def reply(messages, **_):
        asked = messages[-1].text.removeprefix("Capital of ").removesuffix("?")
        return f"It is {FACTS[asked]}." if asked in countries else "I do not know."

    return reply


def model(*countries, label="some", **fields):
    return Scripted(reply=knows(*countries), label=label, **fields)


ALL, HALF, NONE = (
    System("all", model(*FACTS, label="all")),
    System("half", model("France", "Peru", label="half")),
    System("none", model(label="none")),
)


def test_every_system_on_every_task():
    found = Runner().evaluate([ALL, HALF, NONE], [TASK])
    assert [found.cell(s, "capitals").estimate.value for s in ("all", "half", "none")] == [1, 0.5, 0]
    assert found.cell("half", "capitals").values == (1, 0, 0, 1)
    assert found.cell("half", "capitals").cases == tuple(FACTS)
    assert found.cell("none", "capitals", "length").estimate.value == len("I do not know.")
    assert found.cell("all", "capitals").answer_usage == usage(40, 20)


def test_differences_and_gains_are_over_the_same_cases():
    found = Runner().evaluate([ALL, HALF, NONE], [TASK])
    assert found.difference("all", "half", "capitals").value == 0.5
    assert found.gain("half", "none", "all", "capitals").value == 0.5
    smaller = Runner().evaluate([HALF], [TASK.limited(2)])
    both = type(found)((*found.cells, *smaller.cells[:0]), found.confidence, found.seed)
    with pytest.raises(EvaluationError, match="Nothing was measured"):
        both.cell("half", "rivers")


def test_tables_and_json():
    found = Runner().evaluate([ALL, NONE], [TASK])
    table = found.to_markdown().splitlines()
    assert table[0] == "| system | capitals: correct | capitals: length |"
    assert table[2].startswith("| all | 100.0 % (51.0-100.0) |")
    stored = json.loads(found.to_json())
    assert len(stored["answers"]) == 2 * len(FACTS), "each once, with all its scores"
    assert stored["answers"][0]["answer"]["text"] == "It is Paris."
    scores = [(score["metric"], score["value"]) for score in stored["answers"][0]["scores"]]
    assert scores == [("correct", 1), ("length", len("It is Paris."))]
    single = Runner().evaluate([ALL], [TASK.limited(1)])
    bounds = json.loads(single.to_json(answers=False))["cells"][1]["estimate"]
    assert bounds["low"] is None
    assert "Infinity" not in single.to_json()


def test_nothing_is_asked_twice(tmp_path):
    system = System("all", model(*FACTS))
    first = Runner(tmp_path).evaluate([system], [TASK])
    again = System("another name", model(*FACTS))
    second = Runner(tmp_path).evaluate([again], [TASK])
    assert len(system.runnable.calls) == 4
    assert again.runnable.calls == []
    assert [c.values for c in first.cells] == [c.values for c in second.cells]


@pytest.mark.parametrize(
    ("system", "task", "seed"),
    [
        (System("all", model(*FACTS, label="other")), TASK, 0),
        (System("all", model(*FACTS).bind(stop=["x"])), TASK, 0),
        (System("all", model(*FACTS)), Task("capitals", TASK.cases, TASK.scorers, max_tokens=8), 0),
        (System("all", model(*FACTS)), TASK, 1),
    ],
    ids=["model", "settings", "length", "seed"],
)
def test_whatever_changes_an_answer_is_asked_anew(tmp_path, system, task, seed):
    Runner(tmp_path).evaluate([System("all", model(*FACTS))], [TASK])
    Runner(tmp_path, seed=seed).evaluate([system], [task])
    bound = getattr(system.runnable, "bound", system.runnable)
    assert len(bound.calls) == 4


def test_an_interrupted_run_goes_on(tmp_path):
    answered = threading.Event()

    def fails_once(messages, **_):
        if "Kenya" in messages[-1].text and not answered.is_set():
            raise ConnectionError("the line is dead")
        return "It is Nairobi."

    system = System("one", Scripted(reply=fails_once, label="one"))
    with pytest.raises(EvaluationError, match=r"1 of 4 failed.*ConnectionError.*run again") as caught:
        Runner(tmp_path).evaluate([system], [TASK])
    assert isinstance(caught.value.__cause__, ConnectionError)
    answered.set()
    system.runnable.calls.clear()
    found = Runner(tmp_path).evaluate([system], [TASK])
    assert [messages[-1].text for messages, _ in system.runnable.calls] == ["Capital of Kenya?"]
    assert found.cell("one", "capitals").values == (0, 0, 1, 0)


def test_a_torn_line_is_asked_again_and_the_file_stays_readable(tmp_path):
    system = System("all", model(*FACTS))
    Runner(tmp_path).evaluate([system], [TASK])
    file = tmp_path / "answers.jsonl"
    file.write_text(file.read_text()[:-20])
    system.runnable.calls.clear()
    Runner(tmp_path).evaluate([system], [TASK])
    assert len(system.runnable.calls) == 1
    Runner(tmp_path).evaluate([system], [TASK])
    assert len(system.runnable.calls) == 1


def test_an_answer_is_kept_whatever_breaks_its_lines(tmp_path):
    text = "one\u2028two\u2029three\x85four"
    Cache(tmp_path / "x.jsonl").put("a", text)
    assert Cache(tmp_path / "x.jsonl").get("a") == text


def test_a_line_that_is_torn_within_a_character_costs_that_line_alone(tmp_path):
    cache = Cache(tmp_path / "x.jsonl")
    cache.put("a", "first")
    cache.put("b", "é")
    content = (tmp_path / "x.jsonl").read_bytes()
    (tmp_path / "x.jsonl").write_bytes(content[: content.index("é".encode()) + 1])
    assert Cache(tmp_path / "x.jsonl").get("a") == "first"


def test_a_cache_in_memory_only():
    cache = Cache()
    cache.put("a", {"x": 1})
    assert cache.get("a") == {"x": 1}
    assert cache.get("b") is None
    assert len(cache) == 1


def test_settings_reach_models_that_have_them():
    system = System("all", model(*FACTS))
    Runner(seed=3).evaluate([system], [TASK])
    settings = [kwargs for _, kwargs in system.runnable.calls]
    assert {s["max_tokens"] for s in settings} == {7}
    assert len({s["seed"] for s in settings}) == 4
    again = System("all", model(*FACTS))
    Runner(seed=3).evaluate([again], [TASK])
    assert sorted(s["seed"] for s in settings) == sorted(k["seed"] for _, k in again.runnable.calls)


def test_samples_are_averaged_by_case():
    turns = iter(["It is Paris.", "no", "no", "It is Paris."])
    system = System("one", Scripted(reply=lambda messages, **_: next(turns), label="one"))
    found = Runner(samples=4, max_concurrency=1).evaluate([system], [TASK.limited(1)])
    assert found.cell("one", "capitals").values == (0.5,)
    assert len({kwargs["seed"] for _, kwargs in system.runnable.calls}) == 4


def test_no_more_at_once_than_allowed():
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(2)

    def reply(messages, **_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(5)
        with lock:
            running -= 1
        return "x"

    Runner(max_concurrency=2).evaluate([System("one", Scripted(reply=reply, label="one"))], [TASK])
    assert most == 2


# Systems


def test_chains_and_texts_are_systems():
    prompt = ChatPromptTemplate.from_messages([("system", "Be right."), ("placeholder", "{messages}")])
    chain = (
        RunnableLambda(lambda messages: {"messages": messages}) | prompt | model(*FACTS) | StrOutputParser()
    )
    found = Runner().evaluate([System("chain", chain, identity="1")], [TASK])
    assert found.cell("chain", "capitals").estimate.value == 1


def test_identities_are_found_or_asked_for():
    chain = ChatPromptTemplate.from_template("{x}") | model(label="a").bind(stop=["b"])
    assert identity(chain) == identity(
        ChatPromptTemplate.from_template("{x}") | model(label="a").bind(stop=["b"])
    )
    assert identity(chain) != identity(
        ChatPromptTemplate.from_template("{y}") | model(label="a").bind(stop=["b"])
    )
    with pytest.raises(EvaluationError, match="identity="):
        System("mystery", RunnableLambda(lambda x: x))


def test_a_model_without_parameters_needs_an_identity():
    class Anonymous(Scripted):
        @property
        def _identifying_params(self):
            return {}

    with pytest.raises(EvaluationError, match=r"Anonymous.*identity="):
        System("a", Anonymous(reply=lambda messages: ""))


CALL = {"name": "book", "args": {"seats": 2}}
TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book.",
        "parameters": {"type": "object", "properties": {"seats": {"type": "integer"}}},
    },
}
CALLS = Task("calls", (Case("1", (HumanMessage("Book 2."),), [CALL], (TOOL,)),), (CallsExactly(),))


def calls(messages, tools=(), **_):
    assert [tool["function"]["name"] for tool in tools] == ["book"]
    return AIMessage("", tool_calls=[{**CALL, "id": "1"}])


def test_tools_are_bound_beside_other_settings():
    tool_user = ToolUser(reply=calls, label="t")
    found = Runner().evaluate([System("t", tool_user.bind(stop=["x"]))], [CALLS])
    assert found.cell("t", "calls").estimate.value == 1
    assert len(tool_user.calls) == 1


def test_systems_that_cannot_call_tools_are_refused():
    with pytest.raises(EvaluationError, match="can call none"):
        Runner().evaluate([System("plain", model())], [CALLS])
    with pytest.raises(EvaluationError, match="no chat model"):
        Runner().evaluate([System("chain", RunnableLambda(str), identity="1")], [CALLS])


def test_answers_of_another_kind_are_refused():
    with pytest.raises(EvaluationError, match="int"):
        Runner().evaluate([System("odd", RunnableLambda(lambda _: 3), identity="1")], [TASK])


@pytest.mark.parametrize(
    ("systems", "tasks", "message"),
    [
        ([ALL, ALL], [TASK], "Two systems are called 'all'"),
        ([ALL], [TASK, TASK], "Two tasks are called 'capitals'"),
        ([], [TASK], "There is no system"),
        ([ALL], [], "There is no task"),
    ],
)
def test_names_are_unique(systems, tasks, message):
    with pytest.raises(EvaluationError, match=message):
        Runner().evaluate(systems, tasks)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"max_concurrency": 0}])
def test_nonsense_is_refused(settings):
    with pytest.raises(EvaluationError, match="at least 1"):
        Runner(**settings)


# Judges


def judge_by_length(messages, **_):
    answer = messages[-1].text.split("<answer>\n")[1].split("\n</answer>")[0]
    return json.dumps({"reason": "counted", "score": len(answer)})


def test_judges_are_columns_and_their_grades_are_kept(tmp_path):
    grader = Scripted(reply=judge_by_length, label="grader")
    task = TASK.with_scorers(Judge(grader, HELPFULNESS))
    found = Runner(tmp_path).evaluate([ALL, HALF], [task])
    cell = found.cell("all", "capitals", "helpfulness")
    assert cell.estimate.value == found.cell("all", "capitals", "length").estimate.value
    assert cell.graded[0].score.reason == "counted"
    assert cell.grade_usage == usage(40, 20)
    asked = len(grader.calls)
    assert asked == 4 + 2  # about France and Peru both systems say the same
    Runner(tmp_path).evaluate([ALL, HALF], [task])
    assert len(grader.calls) == asked


def test_a_judge_that_cannot_be_understood_leaves_a_gap():
    grader = Judge(Scripted(reply=lambda messages, **_: "hm", label="grader"), HELPFULNESS, retries=0)
    cell = Runner().evaluate([ALL], [TASK.with_scorers(grader)]).cell("all", "capitals", "helpfulness")
    assert (cell.estimate, cell.unscored, cell.shown()) == (None, 4, "-")


def test_systems_are_compared_in_both_orders(tmp_path):
    def reply(messages, **_):
        first = messages[-1].text.split("<answer of A>")[1].split("</answer of A>")[0]
        second = messages[-1].text.split("<answer of B>")[1].split("</answer of B>")[0]
        verdict = "tie" if first == second else "A" if "It is" in first else "B"
        return json.dumps({"reason": "knows", "verdict": verdict})

    grader = Scripted(reply=reply, label="grader")
    runner = Runner(tmp_path)
    found = runner.compare(ALL, HALF, TASK, PairwiseJudge(grader, HELPFULNESS))
    assert (found.wins, found.ties, found.losses, found.unread) == (2, 2, 0, 0)
    assert found.win_rate.value == 0.75
    assert found.consistency.value == 1
    assert "2 won, 2 tied, 0 lost" in str(found)
    asked = len(grader.calls)
    assert runner.compare(ALL, HALF, TASK, PairwiseJudge(grader, HELPFULNESS)) == found
    assert len(grader.calls) == asked


# Your own tasks


def test_own_tasks_from_a_file(tmp_path):
    file = tmp_path / "rivers.jsonl"
    rows = [
        {"prompt": "Capital of France?", "expected": "Paris", "name": "fr"},
        {"prompt": [{"role": "user", "content": "Capital of Peru?"}], "expected": ["Lima", "Callao"]},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    task = load_task(file)
    assert (task.name, [case.name for case in task.cases]) == ("rivers", ["fr", "2"])
    assert Runner().evaluate([HALF], [task]).cell("half", "rivers").estimate.value == 1


def test_a_prompt_of_an_own_task_may_break_lines(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"prompt": "a\u2028b"}\n', encoding="utf-8")
    (case,) = load_task(tmp_path / "own.jsonl").cases
    assert case.messages[0].text == "a\u2028b"


@pytest.mark.parametrize(
    ("row", "metric"),
    [
        ({"expected": "x"}, "correct"),
        ({"tools": [TOOL], "tool_calls": [CALL]}, "exact"),
        ({"instructions": {"max_words": 3}}, "followed"),
        ({"chosen": "a", "rejected": "b"}, "prefers chosen"),
        ({"refuse": True}, "refused"),
        ({}, "length"),
    ],
)
def test_the_keys_of_a_row_say_what_is_counted(tmp_path, row, metric):
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"prompt": "?", **row}))
    assert [scorer.name for scorer in load_task(file).scorers] == [metric]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{", "line 1 is not readable JSON"),
        ("[]", "has no 'prompt'"),
        ('{"prompt": "?", "answer": 1}', r"\['answer'\] is not of any kind"),
        ('{"prompt": "?"}\n{"prompt": "?", "refuse": true}', "line 2 is of another kind"),
        ('{"prompt": "?", "name": "a"}\n{"prompt": "!", "name": "a"}', "two lines have the name 'a'"),
        ('{"prompt": "?", "instructions": {"words": 1}}', "'words'"),
    ],
)
def test_unreadable_tasks_say_where(tmp_path, text, message):
    file = tmp_path / "own.jsonl"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        load_task(file)


def test_a_missing_file_names_the_built_in_tasks(tmp_path):
    with pytest.raises(EvaluationError, match=r"capitals"):
        load_task(tmp_path / "none.jsonl")


def test_fewer_cases_are_a_part_of_more():
    order = TASK.limited(3, seed=1).cases
    assert TASK.limited(2, seed=1).cases == order[:2]
    assert TASK.limited(9, seed=1) is TASK
    with pytest.raises(EvaluationError, match="at least 1"):
        TASK.limited(0)


def test_answers_survive_the_cache():
    answer = Answer("a", (CALL,), ("{",), {"input_tokens": 1}, {"mixture": {"tools": 1.0}})
    assert Answer.from_dict(json.loads(json.dumps(asdict(answer)))) == answer
