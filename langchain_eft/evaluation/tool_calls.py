"""Tool calls: generated tools with requests for them, and whether an answer is exactly the right call.

The bundled models learned tool calls from another generator (`training/smol/tasks`), which shares no words
and values with this one. So the task measures whether a model can call tools, not what it remembers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_eft.evaluation.cases import Answer, Case, Score

VERBS = (
    "reserve", "forecast", "simulate", "locate", "archive", "publish", "retrieve", "monitor", "inspect",
    "repair", "register", "cancel", "renew", "assign", "approve", "dispatch", "calibrate", "audit",
)  # fmt: skip
NOUNS = (
    "harvest", "kayak", "sensor", "battery", "parcel", "shipment", "warehouse", "patient", "lecture", "exam",
    "tournament", "player", "satellite", "tide", "pollen", "voucher", "subscription", "contract", "vehicle",
    "playlist", "podcast", "episode", "gallery", "turbine", "greenhouse",
)  # fmt: skip
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "integer": ("depth", "floor", "seats", "rounds", "port", "copies", "priority"),
    "number": ("altitude", "voltage", "tolerance", "humidity", "budget"),
    "boolean": ("dry_run", "force", "archived", "notify"),
    "word": ("material", "brand", "channel", "flavor", "species"),
    "town": ("town", "harbor", "site", "region"),
    "owner": ("owner", "manager", "guest", "driver"),
    "day": ("deadline", "since", "arrival", "expiry"),
    "phrase": ("subject", "remark", "headline", "memo"),
    "labels": ("labels", "parts", "ingredients"),
    "codes": ("codes", "slots", "lanes"),
}
"""Names of arguments, by the kind of their values."""

WORDS = (
    "walnut", "copper", "saffron", "velvet", "granite", "bamboo", "cobalt", "juniper", "marble", "linen",
    "ginger", "amber", "cedar", "quartz", "basil", "silk", "bronze", "thyme", "ivory", "maple",
)  # fmt: skip
TOWNS = (
    "Lillehammer", "Tavira", "Whitby", "Sapa", "Ushuaia", "Hallstatt", "Visby", "Mostar", "Luderitz", "Kotor",
    "Galle", "Sintra", "Banff", "Nuuk", "Levanger", "Oban", "Paraty", "Jokkmokk", "Alnwick", "Ronda",
)  # fmt: skip
OWNERS = (
    "Ingrid", "Takumi", "Beatriz", "Oskar", "Leila", "Tomas", "Mei", "Jonas", "Fatima", "Pavel", "Greta",
    "Hugo", "Amara", "Dmitri", "Lucia", "Rohan",
)  # fmt: skip
DESCRIPTIONS = ("{Phrase}.", "Use this to {phrase}.", "{Phrase} on request.", "Tool to {phrase}.")
REQUESTS = (
    "Call {name} with {assigned}.",
    "Use the {name} tool with {spoken}.",
    "Please {phrase} with {spoken}.",
    "Can you {phrase} for {spoken}?",
    "I need you to {phrase}: {assigned}.",
    "Run {name} with {assigned}.",
)
REQUESTS_WITHOUT_ARGUMENTS = ("Call {name}.", "Please run the {name} tool.", "Can you {phrase}?")
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "labels": {"type": "array", "items": {"type": "string"}},
    "codes": {"type": "array", "items": {"type": "integer"}},
}


def tool_call_cases(count: int, seed: int = 0) -> list[Case]:
    """Requests with one right call and one to three tools. The same seed gives the same requests.

    Args:
        count: Number of requests.
        seed: Seed of tools, values and wordings.
    """
    r = random.Random(seed)
    return [_case(r, f"{seed}-{i}") for i in range(count)]


def _case(r: random.Random, name: str) -> Case:
    kinds_by_name: dict[str, dict[str, str]] = {}
    count = r.choice((1, 1, 2, 3))
    while len(kinds_by_name) < count:
        kinds_by_name[f"{r.choice(VERBS)}_{r.choice(NOUNS)}"] = _arguments(r)
    tools = tuple(_schema(r, tool, kinds) for tool, kinds in kinds_by_name.items())
    chosen = r.choice(list(kinds_by_name))
    args = {argument: _value(r, kind) for argument, kind in kinds_by_name[chosen].items()}
    return Case(name, (HumanMessage(_request(r, chosen, args)),), [{"name": chosen, "args": args}], tools)


def _arguments(r: random.Random) -> dict[str, str]:
    kinds = [r.choice(list(ARGUMENTS)) for _ in range(r.choice((0, 1, 1, 1, 2, 2, 3)))]
    return {r.choice(ARGUMENTS[kind]): kind for kind in kinds}


def _schema(r: random.Random, name: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    phrase = name.replace("_", " ")
    description = r.choice(DESCRIPTIONS).format(phrase=phrase, Phrase=phrase.capitalize())
    properties = {argument: dict(_TYPES.get(kind, {"type": "string"})) for argument, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def _value(r: random.Random, kind: str) -> Any:
    match kind:
        case "integer":
            return r.choice((r.randint(0, 9), r.randint(10, 99), r.randint(100, 9999)))
        case "number":
            return round(r.uniform(-50, 500), r.choice((1, 2)))
        case "boolean":
            return r.random() < 0.5
        case "town":
            return r.choice(TOWNS)
        case "owner":
            return r.choice(OWNERS)
        case "day":
            return f"20{r.randint(40, 69)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"
        case "phrase":
            return " ".join(r.sample(WORDS, r.randint(2, 4)))
        case "labels":
            return r.sample(WORDS, r.randint(1, 3))
        case "codes":
            return [r.randint(0, 99) for _ in range(r.randint(2, 4))]
        case _:
            return r.choice(WORDS)


def _request(r: random.Random, name: str, args: Mapping[str, Any]) -> str:
    values = {
        argument: json.dumps(v) if isinstance(v, (list, bool)) else str(v) for argument, v in args.items()
    }
    return r.choice(REQUESTS if args else REQUESTS_WITHOUT_ARGUMENTS).format(
        name=name,
        phrase=name.replace("_", " "),
        assigned=", ".join(f"{argument}={value}" for argument, value in values.items()),
        spoken=" and ".join(f"{argument.replace('_', ' ')} {value}" for argument, value in values.items()),
    )


@dataclass(frozen=True)
class CallsExactly:
    """Whether the answer is exactly the expected calls: names, arguments, types, order, and nothing else.

    `expected` of a case is a list of `{"name": ..., "args": ...}`.

    Attributes:
        name: Name of the metric.
    """

    name: str = "exact"
    unit: str = "share"
    higher_is_better: bool | None = True

    def score(self, case: Case, answer: Answer) -> Score:
        """1 if the answer is exactly the expected calls, else 0."""
        if answer.invalid_tool_calls:
            return Score(0.0, f"a call that cannot be read: {answer.invalid_tool_calls[0][:80]}")
        if not answer.tool_calls:
            return Score(0.0, f"no call: {answer.text[:80]}")
        if answer.text.strip():
            return Score(0.0, f"says something beside the call: {answer.text.strip()[:80]}")
        actual, expected = _canonical(answer.tool_calls), _canonical(case.expected)
        if actual == expected:
            return Score(1.0, "exact")
        return Score(0.0, f"{actual} instead of {expected}")


def _canonical(calls: Sequence[Mapping[str, Any]]) -> str:
    # JSON, because Python regards 1, 1.0 and True as equal. The order of arguments has no meaning.
    return json.dumps([[c["name"], c["args"]] for c in calls], sort_keys=True, ensure_ascii=False)
