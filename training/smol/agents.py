"""Measure the two steps of an agent with everyday tools: the right calls, and an answer with the results.

python -m training.smol.agents

Nothing is enforced: the model decides whether and what it calls. It gets the results of right calls, and its
next message has to hold them, without another call. Names in other scripts are arguments of one more tool.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from langchain_eft import EFTChatModel

from .places import load_places

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = (
    "orange", "lantern", "mountain", "pencil", "dragon", "whisper", "keyboard", "elephant", "kitchen",
    "planet", "rhythm", "puzzle", "harvest", "umbrella", "chimney", "bottle", "giraffe", "volcano", "diamond",
    "thunder",
)  # fmt: skip
WEATHER = ("cloudy", "sunny", "foggy", "rainy", "windy", "snowy", "clear", "stormy")
REQUESTS = {
    "multiply": (
        "What is multiply({a}, {b})? Use the tool.", "Call multiply with a={a}, b={b}.",
        "Multiply {a} by {b}.", "What is {a} times {b}?",
    ),
    "get_weather": (
        "Use the get_weather tool with city {city}.", "What is the weather in {city}?",
        "How is the weather in {city} today?", "Call get_weather with city={city}.",
    ),
    "count_letters": (
        "Count the letters of {word}.", "Call count_letters with word={word}.",
        "How many letters does {word} have?",
    ),
}  # fmt: skip
AND = "? And also: "
NAMES = (
    "こんにちは株式会社", "田中太郎", "東京電気", "山田花子", "さくら銀行", "王小明", "李明",
    "北京大学", "上海公司", "김민수", "서울전자", "Москва", "Иван", "Петров", "Ольга", "Αθήνα", "Νίκος",
    "José", "García", "Müller", "GmbH", "Żółw", "Søren", "Ångström", "محمد", "دبي", "नमस्ते", "กรุงเทพ",
)  # fmt: skip
FAILED = ("fail", "error", "sorry", "could not", "did not")

Call = tuple[str, dict[str, Any]]


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return WEATHER[sum(map(ord, city)) % len(WEATHER)]


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


@tool
def create_customer(customer_name: str) -> str:
    """Create a customer."""
    return f"Created {customer_name}"


TOOLS = {each.name: each for each in (multiply, get_weather, count_letters)}


@dataclass(frozen=True)
class Task:
    """A request, and the calls that are right.

    Attributes:
        kind: What it is counted with.
        request: What the user says.
        calls: The calls.
    """

    kind: str
    request: str
    calls: Sequence[Call]


def tasks(seed: int, single: int = 30, double: int = 20) -> list[Task]:
    """Tasks of one call, as many with each tool, and of two calls of one tool."""
    r = random.Random(seed)
    cities = [city for city in load_places().cities[:900] if city.isascii()]

    def arguments(name: str) -> dict[str, Any]:
        if name == "multiply":
            return {"a": r.randint(2, 99), "b": r.randint(2, 99)}
        return {"city": r.choice(cities)} if name == "get_weather" else {"word": r.choice(WORDS)}

    made = []
    for name, requests in REQUESTS.items():
        for _ in range(single):
            given = arguments(name)
            made.append(Task(name, r.choice(requests).format(**given), [(name, given)]))
    for name in ("multiply", "get_weather"):
        request = {"multiply": "What is multiply({a}, {b})", "get_weather": "What is the weather in {city}"}[
            name
        ]
        for _ in range(double):
            both = [arguments(name), arguments(name)]
            text = AND.join(request.format(**given) for given in both) + "?"
            made.append(Task(f"two calls of {name}", text, [(name, given) for given in both]))
    return made


def calls_of(message: AIMessage) -> list[Call]:
    """The calls of a message."""
    return [(call["name"], call["args"]) for call in message.tool_calls]


def results_of(message: AIMessage) -> list[ToolMessage]:
    """What the tools return to a message with right calls."""
    return [TOOLS[call["name"]].invoke(call) for call in message.tool_calls]


def told(answer: AIMessage, results: Sequence[ToolMessage]) -> int:
    """How many results an answer holds; none if it calls a tool or reports a failure."""
    text = answer.text.lower()
    if answer.tool_calls or any(word in text for word in FAILED):
        return 0
    return sum(str(result.content) in text for result in results)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=3, help="fixes the tasks")
    asked = tasks(parser.parse_args().seed)
    model = EFTChatModel(temperature=0, max_tokens=90)
    llm = model.bind_tools(list(TOOLS.values()))
    first = llm.batch([[HumanMessage(task.request)] for task in asked])
    right = [(t, m) for t, m in zip(asked, first, strict=True) if calls_of(m) == list(t.calls)]
    results = [results_of(message) for _, message in right]
    steps: list[list[BaseMessage]] = [
        [HumanMessage(task.request), message, *returned]
        for (task, message), returned in zip(right, results, strict=True)
    ]
    counts = [told(answer, returned) for answer, returned in zip(llm.batch(steps), results, strict=True)]
    every = sum(count == len(returned) for count, returned in zip(counts, results, strict=True))
    of_kind = Counter(task.kind for task, _ in right)
    for kind, number in Counter(task.kind for task in asked).items():
        print(f"{kind}: {of_kind[kind]} of {number} right")
    print(f"all: {len(right)} of {len(asked)} right")
    print(f"answers to these: {sum(map(bool, counts))} tell a result, {every} every one")
    wanted = [[("create_customer", {"customer_name": name})] for name in NAMES]
    customers = model.bind_tools([create_customer]).batch(
        [[HumanMessage(f"Create a customer named '{name}'")] for name in NAMES]
    )
    exact = sum(calls_of(m) == calls for m, calls in zip(customers, wanted, strict=True))
    print(f"names: {exact} of {len(NAMES)} exact")


if __name__ == "__main__":
    main()
