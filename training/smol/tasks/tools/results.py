"""What tools return, and what an assistant says about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.smol.tasks.tools.signatures import Tool
from training.smol.tasks.tools.values import (
    Value,
    draw_integer,
    draw_kind,
    draw_number,
    draw_phrase,
    draw_sentence,
)
from training.smol.tasks.tools.words import Words

STATES = (
    "sunny",
    "cloudy and cold",
    "done",
    "ok",
    "not found",
    "true",
    "false",
    "pending",
    "foggy",
    "sold out",
    "yes",
)

ANSWERS = (
    "The result of {name}({shown}) is {value}.",
    "The {phrase} is {value}.",
    "The answer is {value}.",
    "The tool returned {value}.",
    "Here is the result: {value}.",
    "{name} says {value}.",
    "It is {value}.",
    "I called {name}, and the result is {value}.",
    "According to the tool, it is {value}.",
)
ANSWERS_TO_SEVERAL = (
    "The results are {first} and {last}.",
    "The first result is {first}, and the second is {last}.",
    "I have two results: {first} and {last}.",
    "{first} and {last}.",
    "The tools returned {first} and {last}.",
)
FAILURES = (
    "Error: no {word} in {argument}",
    "Error: {word} not available",
    "Error: the service {word} does not answer",
    "Error: {argument} is not a valid {word}",
)
APOLOGIES = (
    "I am sorry, that did not work: {reason}.",
    "The tool could not do that: {reason}.",
    "{name} failed: {reason}.",
    "Unfortunately there was an error: {reason}.",
)


@dataclass(frozen=True)
class Result:
    """What one call returned.

    Attributes:
        text: As the tool wrote it.
        value: What matters in it; None after an error.
        answer: What the assistant says.
    """

    text: str
    value: Value
    answer: str


def random_result(words: Words, tool: Tool, arguments: Mapping[str, Value]) -> Result:
    """What a call returned: now and then an error."""
    r = words.random
    spoken = [
        json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict | bool) else str(v)
        for v in arguments.values()
    ]
    if r.random() < 0.08:
        argument = r.choice(spoken) if spoken else words.word()
        failure = r.choice(FAILURES).format(word=words.word(), argument=argument)
        reason = failure.removeprefix("Error: ")
        return Result(failure, None, r.choice(APOLOGIES).format(reason=reason, name=tool.name))
    value = _value(words)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    answer = r.choice(ANSWERS).format(
        name=tool.name, shown=", ".join(spoken), phrase=tool.phrase, value=shown
    )
    return Result(_written(words, tool, value, shown), value, answer)


def answer_to_several(words: Words, results: Sequence[Result]) -> str:
    """What the assistant says about the results of several calls."""
    if len(results) != 2 or any(result.value is None for result in results):
        return " ".join(result.answer for result in results)
    first, last = (
        r.value if isinstance(r.value, str) else json.dumps(r.value, ensure_ascii=False) for r in results
    )
    return words.random.choice(ANSWERS_TO_SEVERAL).format(first=first, last=last)


def _value(words: Words) -> Value:
    r = words.random
    draws: tuple[Callable[[Words], Value], ...] = (
        draw_integer,
        draw_integer,
        draw_number,
        lambda w: w.token(),
        draw_phrase,
        lambda w: w.random.choice(STATES),
        draw_sentence,
        lambda w: draw_kind(w, nested=False).draw(w),
    )
    return r.choice(draws)(words)


def _written(words: Words, tool: Tool, value: Value, shown: str) -> str:
    r = words.random
    match r.choices(("bare", "object", "status", "sentence"), (5, 2, 1, 1))[0]:
        case "object":
            return json.dumps({r.choice(("result", "value", words.word())): value}, ensure_ascii=False)
        case "status":
            return json.dumps({"status": "ok", words.word(): value}, ensure_ascii=False)
        case "sentence":
            return f"The {tool.phrase} is {shown}."
        case _:
            return shown
