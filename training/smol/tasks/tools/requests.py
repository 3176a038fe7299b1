"""User messages that ask for a call of a tool."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from training.smol.tasks.tools.phrasings import (
    CLOSINGS,
    IN_PROSE,
    NUMBERS,
    OPENINGS,
    WITH_ARGUMENTS,
    WITHOUT_ARGUMENTS,
)
from training.smol.tasks.tools.signatures import Tool
from training.smol.tasks.tools.values import Value
from training.smol.tasks.tools.words import Part, Words, split_words

PREPOSITIONS: Mapping[str, tuple[str, ...]] = {
    "city": ("in", "in", "at", "near", "from", "for"),
    "person": ("for", "with", "by", "of"),
    "day": ("on", "for", "before", "after"),
    "email": ("to", "for"),
}
"""How prose joins a value to a request, by its role."""

Shown = Mapping[str, str]
"""Values as a request shows them, by argument."""


def ask_for(words: Words, tool: Tool, arguments: Mapping[str, Value]) -> str:
    """A user message whose right answer is `tool`, called with `arguments`."""
    r = words.random
    request = _request(words, tool, arguments)
    if words.part is Part.TRAINING:
        if r.random() < 0.1:
            request = r.choice(OPENINGS) + request
        if r.random() < 0.1:
            request += r.choice(CLOSINGS)
    return request


def _request(words: Words, tool: Tool, arguments: Mapping[str, Value]) -> str:
    r, part = words.random, words.part
    gaps = {
        "name": tool.name,
        "phrase": tool.phrase,
        "Phrase": tool.phrase.capitalize(),
        "last": tool.phrase.split()[-1],
    }
    if not arguments:
        return r.choice(WITHOUT_ARGUMENTS[part]).format(**gaps)
    shown = _shown(words, tool, arguments)
    roles = [tool.kind(argument).role for argument in arguments]
    if len(arguments) == 2 and all(_is_number(value) for value in arguments.values()) and r.random() < 0.4:
        first, second = shown.values()
        return r.choice(NUMBERS).format(a=first, b=second, **gaps)
    if all(role in PREPOSITIONS for role in roles) and len(set(roles)) == len(roles) and r.random() < 0.5:
        prose = " ".join(
            f"{r.choice(PREPOSITIONS[role])} {value}"
            for role, value in zip(roles, shown.values(), strict=True)
        )
        return r.choice(IN_PROSE[part]).format(prose=prose, **gaps)
    given = r.choice(STYLES)(shown)
    return r.choice(WITH_ARGUMENTS[part]).format(
        given=given,
        Given=given[0].upper() + given[1:]
        if given[0].islower() and given.startswith(next(iter(shown)))
        else given,
        values=", ".join(shown.values()),
        listed="\n".join(
            f"{r.choice('-*') if i else '-'} {name}: {value}" for i, (name, value) in enumerate(shown.items())
        ),
        **gaps,
    )


def _shown(words: Words, tool: Tool, arguments: Mapping[str, Value]) -> dict[str, str]:
    r = words.random
    mark = r.choices(("", '"', "'", "`"), (80, 12, 5, 3))[0]
    prose = r.random() < 0.3
    return {
        name: _show(words, value, mark or ('"' if tool.kind(name).quoted else ""), prose=prose)
        for name, value in arguments.items()
    }


def _show(words: Words, value: Value, mark: str, *, prose: bool) -> str:
    """A value as a request has it."""
    match value:
        case bool():
            if prose and words.random.random() < 0.4:
                return words.random.choice(("yes", "on") if value else ("no", "off"))
            return json.dumps(value)
        case str():
            return f"{mark}{value}{mark}"
        case [*items] if prose and len(items) > 1 and not any("," in str(item) for item in items):
            return ", ".join(map(str, items[:-1])) + f" and {items[-1]}"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _spoken(name: str) -> str:
    return " ".join(split_words(name)) or name


def _joined(between: str, join: str, last: str, *, spoken: bool) -> Callable[[Shown], str]:
    """A style: how a name is joined to its value, and these to one another."""

    def style(shown: Shown) -> str:
        pairs = [f"{_spoken(name) if spoken else name}{between}{value}" for name, value in shown.items()]
        return join.join(pairs) if len(pairs) < 2 else join.join(pairs[:-1]) + last + pairs[-1]

    return style


def _value_first(shown: Shown) -> str:
    return " and ".join(f"{value} as {_spoken(name)}" for name, value in shown.items())


def _value_for(shown: Shown) -> str:
    return ", ".join(f"{value} for {name}" for name, value in shown.items())


def _the(shown: Shown) -> str:
    return " and ".join(f"the {_spoken(name)} {value}" for name, value in shown.items())


STYLES: tuple[Callable[[Shown], str], ...] = (
    _joined("=", ", ", ", ", spoken=False),
    _joined("=", ", ", ", ", spoken=False),
    _joined("=", " and ", " and ", spoken=False),
    _joined(" = ", ", ", ", ", spoken=False),
    _joined(": ", ", ", ", ", spoken=False),
    _joined(": ", "; ", "; ", spoken=True),
    _joined("=", " ", " ", spoken=False),
    _joined(" ", " and ", " and ", spoken=True),
    _joined(" ", " and ", " and ", spoken=True),
    _joined(" ", ", ", " and ", spoken=True),
    _joined(" ", ", ", ", ", spoken=True),
    _joined(" is ", ", ", " and ", spoken=True),
    _joined(" being ", ", ", ", ", spoken=True),
    _value_first,
    _value_for,
    _the,
)
"""How a request lists names and values. Each takes values as they are shown, by argument."""


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
