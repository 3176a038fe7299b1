"""Kinds of argument values: a JSON schema, and values that fit it."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.smol.tasks.tools.words import Words

Value = Any
"""A JSON value."""

TEXT = {"type": "string"}
UNITS = ("kg", "km", "m", "l", "mg", "hours", "min", "%", "GB", "°C", "pieces", "dollars")


@dataclass(frozen=True)
class Kind:
    """The values of one argument.

    Attributes:
        role: What a value is, for requests that do not name the argument: `city`, `person`, `day`, `other`.
        schema: The JSON schema.
        draw: A value of this kind.
        quoted: Whether a request has to put the value between quotation marks, because it has several
            sentences or signs.
    """

    role: str
    schema: Mapping[str, Any]
    draw: Callable[[Words], Value]
    quoted: bool = False


def draw_integer(words: Words) -> int:
    """An integer of any size, small ones more often."""
    r = words.random
    return r.choice(
        (
            r.randint(0, 9),
            r.randint(10, 99),
            r.randint(100, 9999),
            r.randint(-99, 99),
            r.randint(0, 10 ** r.randint(4, 7)),
        )
    )


def draw_number(words: Words) -> float:
    """A number with one to four decimals."""
    r = words.random
    return r.choice(
        (
            round(r.uniform(0, 100), 1),
            round(r.uniform(-60, 900), r.randint(1, 3)),
            float(r.randint(0, 60)),
            round(r.random(), r.randint(2, 4)),
        )
    )


def draw_boolean(words: Words) -> bool:
    """True or false."""
    return words.random.random() < 0.5


def draw_day(words: Words) -> str:
    """A day before 2040; those of the evaluation lie after."""
    r = words.random
    year, month, day = r.randint(1950, 2039), r.randint(1, 12), r.randint(1, 28)
    iso = f"{year}-{month:02d}-{day:02d}"
    return r.choices(
        (
            iso,
            f"{day}.{month}.{year}",
            f"{month:02d}/{day:02d}/{year}",
            f"{iso}T{r.randint(0, 23):02d}:{r.randint(0, 59):02d}:00",
        ),
        (7, 1, 1, 1),
    )[0]


def draw_time(words: Words) -> str:
    """A time of the day."""
    r = words.random
    return r.choice(
        (f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}", f"{r.randint(1, 12)} {r.choice(('am', 'pm'))}")
    )


def draw_person(words: Words) -> str:
    """A first name, a full name or a title with a name."""
    r = words.random
    first, last = words.name(), words.name()
    return r.choices(
        (
            first,
            f"{first} {last}",
            f"{r.choice(('Dr.', 'Ms.', 'Mr.', 'Prof.'))} {last}",
            f"{first} {last[0]}.",
        ),
        (6, 4, 1, 1),
    )[0]


def draw_email(words: Words) -> str:
    """An address of a mailbox."""
    r = words.random
    user = r.choice((words.word(), f"{words.word()}.{words.word()}", f"{words.word()}{r.randint(1, 99)}"))
    return f"{user}@{words.word()}.{r.choice(('com', 'org', 'net', 'io', 'de', 'co.uk'))}"


def draw_link(words: Words) -> str:
    """An address on the web."""
    r = words.random
    path = "/".join(words.words(0, 2))
    return f"https://{r.choice(('', 'www.', 'api.'))}{words.word()}.{r.choice(('com', 'org', 'dev'))}/{path}"


def draw_path(words: Words) -> str:
    """A file with its folders."""
    r = words.random
    name = f"{words.word()}.{r.choice(('txt', 'csv', 'pdf', 'py', 'json', 'png', 'md'))}"
    return r.choice(("/", "./", "", "~/")) + "/".join([*words.words(0, 3), name])


def draw_code(words: Words) -> str:
    """An identifier of letters and digits."""
    r = words.random
    letters = "".join(r.choices(string.ascii_uppercase, k=r.randint(1, 3)))
    return r.choice(
        (
            f"{letters}-{r.randint(1, 9999)}",
            f"{letters}{r.randint(10, 99999)}",
            f"{r.getrandbits(32):08x}",
            f"v{r.randint(0, 9)}.{r.randint(0, 20)}.{r.randint(0, 9)}",
            f"#{r.getrandbits(24):06x}",
            f"{words.word()}_{r.randint(1, 99)}",
            letters,
        )
    )


def draw_digits(words: Words) -> str:
    """Digits that are text: a telephone number, a postal code."""
    r = words.random
    return r.choice(
        (
            str(r.randint(0, 9)),
            f"{r.randint(0, 99999):05d}",
            f"+{r.randint(1, 99)} {r.randint(100, 999)} {r.randint(1000, 9999)}",
            str(r.randint(10, 9999)),
            f"{r.randint(1, 99)}.{r.randint(0, 9)}",
        )
    )


def draw_quantity(words: Words) -> str:
    """A number with its unit."""
    r = words.random
    number = r.choice((r.randint(1, 500), round(r.uniform(0, 90), 1)))
    return f"{number}{r.choice((' ', ''))}{r.choice(UNITS)}"


def draw_phrase(words: Words) -> str:
    """Two to six words."""
    phrase = " ".join(words.words(2, words.random.choice((3, 4, 4, 6))))
    return words.random.choices((phrase, phrase.capitalize(), phrase.title()), (7, 2, 1))[0]


def draw_sentence(words: Words) -> str:
    """A sentence with its full stop."""
    r = words.random
    a, b, c, d = (words.word() for _ in range(4))
    return r.choice(
        (
            f"The {a} {b} is {c}.",
            f"Please bring the {a} to {words.name()}, and the {b} too.",
            f"{words.name()} has a {a} {b}!",
            f"Is the {a} of the {b} {c}?",
            f"We met {words.name()} at the {a}; it was {b}.",
            f"{a.capitalize()}: {b} {c} {d}.",
        )
    )


def draw_token(words: Words) -> str:
    """One word."""
    return words.token()


def draw_city(words: Words) -> str:
    """A city, now and then with its country."""
    city = words.city()
    return (
        city
        if words.random.random() < 0.85
        else f"{city}, {words.random.choice((words.city(), 'CA', 'UK', 'FR', 'JP'))}"
    )


def list_of(draw: Callable[[Words], Value], low: int, high: int) -> Callable[[Words], Value]:
    """A list of values."""
    return lambda words: [draw(words) for _ in range(words.random.randint(low, high))]


SIMPLE: Sequence[tuple[int, Kind]] = (
    (14, Kind("other", {"type": "integer"}, draw_integer)),
    (10, Kind("other", {"type": "number"}, draw_number)),
    (9, Kind("flag", {"type": "boolean"}, draw_boolean)),
    (16, Kind("other", TEXT, draw_token)),
    (14, Kind("city", TEXT, draw_city)),
    (12, Kind("person", TEXT, draw_person)),
    (9, Kind("day", TEXT, draw_day)),
    (2, Kind("other", TEXT, draw_time)),
    (3, Kind("email", TEXT, draw_email)),
    (2, Kind("other", TEXT, draw_link)),
    (3, Kind("other", TEXT, draw_path)),
    (4, Kind("other", TEXT, draw_code)),
    (5, Kind("other", TEXT, draw_digits)),
    (2, Kind("other", TEXT, draw_quantity)),
    (10, Kind("other", TEXT, draw_phrase)),
    (3, Kind("other", TEXT, draw_sentence, quoted=True)),
    (7, Kind("list", {"type": "array", "items": TEXT}, list_of(lambda words: words.word(), 1, 4))),
    (2, Kind("list", {"type": "array", "items": TEXT}, list_of(draw_token, 1, 3))),
    (6, Kind("list", {"type": "array", "items": {"type": "integer"}}, list_of(draw_integer, 1, 4))),
    (2, Kind("list", {"type": "array", "items": {"type": "number"}}, list_of(draw_number, 1, 3))),
)
"""Kinds with their weights."""


_INTEGER, _WORD = (
    Kind("other", {"type": "integer"}, draw_integer),
    Kind("other", TEXT, lambda words: words.word()),
)
_CITY, _PERSON, _DAY = (
    Kind("city", TEXT, draw_city),
    Kind("person", TEXT, draw_person),
    Kind("day", TEXT, draw_day),
)

EVERYDAY_ARGUMENTS: Sequence[tuple[str, Kind]] = (
    *((name, _INTEGER) for name in ("a", "b", "x", "y", "n", "count", "number", "days", "age")),
    *((name, _CITY) for name in ("city", "city", "location", "place")),
    *((name, _PERSON) for name in ("name", "person", "customer")),
    *((name, _DAY) for name in ("date", "day")),
    *((name, _WORD) for name in ("word", "word", "topic", "query", "item")),
    ("text", Kind("other", TEXT, draw_phrase)),
    ("price", Kind("other", {"type": "number"}, draw_number)),
    ("email", Kind("email", TEXT, draw_email)),
)
"""Arguments of everyday tools, with the kind that their names suggest."""


def draw_kind(words: Words, *, nested: bool = True) -> Kind:
    """A kind of argument.

    Args:
        words: Where words come from.
        nested: Whether it may be an object.
    """
    r = words.random
    if r.random() < 0.05:
        choices = words.words(2, 4)
        return Kind("other", {"type": "string", "enum": choices}, lambda w: w.random.choice(choices))
    if nested and r.random() < 0.03:
        return _object(words)
    return r.choices([kind for _, kind in SIMPLE], [weight for weight, _ in SIMPLE])[0]


def _object(words: Words) -> Kind:
    inner = {words.word(): draw_kind(words, nested=False) for _ in range(words.random.randint(1, 2))}
    schema = {
        "type": "object",
        "properties": {name: dict(kind.schema) for name, kind in inner.items()},
        "required": list(inner),
    }
    return Kind("object", schema, lambda w: {name: kind.draw(w) for name, kind in inner.items()})
