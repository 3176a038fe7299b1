"""Limits of grammars, checked before the compiler sees one: what it cannot bound itself is refused here.

llguidance follows references on the native stack, where a long chain ends the process, and takes some steps
whose time no limit of its own counts. The checks take time linear in the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from langchain_eft.engine.errors import RequestError

MAX_BYTES = 2**20
"""UTF-8 bytes of a grammar with its schemas, or of one schema. Each takes a microsecond or two to compile."""

MAX_LEVELS = 400
"""Rules and brackets inside one another, references followed; a part of a schema counts twice.

A level takes up to 3.2 kB of native stack, and some platforms give a thread no more than 2 MB. Rules that
refer to each other in a circle count as if each led to the next: the compiler may follow them in that order.
"""

MAX_NESTING = 100
"""Lists and objects inside one another in a schema. The compiler reads 127; Python recurses along them."""

MAX_MEMBERS = 1000
"""Properties of an object, or alternatives of a choice, in a schema. Time is quadratic in properties."""

MAX_KEY_PATTERNS = 100
"""`patternProperties` in a schema. The compiler compares all pairs, and copies all patterns for each pair."""

MAX_COMBINATIONS = 10**8
"""Product of the lengths of all patterns that one text must match at once, by `allOf` or `&`.

The compiler looks at each combination of their alternatives.
"""

MIN_PATTERN_LENGTH = 6
"""Length that the shortest pattern counts in such a product: it may begin anywhere in the text."""

MAX_FORCED_BYTES = 2**14
"""Bytes of text without a choice that the compiler may look ahead; beyond, it does not look ahead at all.

Each takes about a microsecond at each token, on the thread that decodes for all requests.
"""

_REPETITIONS = re.compile(r"\{(\d+)(?:,(\d*))?\}")


@dataclass
class Definition:
    """What a rule, a terminal, or a part of a schema that others refer to takes to compile."""

    levels: int = 1  # brackets inside one another
    length: float = 0  # bytes of the texts in it
    joins: int = 0  # how many signs `&` it has
    references: Counter[str] = field(default_factory=Counter)  # how often it names each other definition


def resolve(definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    """The definitions with what they refer to written out. Names without a definition count nothing.

    Definitions that lead into a circle have the levels of all of them together, and no end.
    """
    known = {name: set(each.references) & definitions.keys() for name, each in definitions.items()}
    sorter = TopologicalSorter(known)
    with suppress(CycleError):  # what leads into no circle is still sorted
        sorter.prepare()
    resolved: dict[str, Definition] = {}
    while sorter.is_active():
        for name in sorter.get_ready():
            one, inner = definitions[name], [(resolved[other], other) for other in known[name]]
            resolved[name] = Definition(
                one.levels + max((other.levels for other, _ in inner), default=0),
                one.length + sum(other.length * one.references[name] for other, name in inner),
                one.joins + sum(other.joins * one.references[name] for other, name in inner),
            )
            sorter.done(name)
    circle = definitions.keys() - resolved.keys()
    levels = sum(definitions[name].levels for name in circle)
    levels += max((each.levels for each in resolved.values()), default=0)
    return resolved | dict.fromkeys(circle, Definition(levels, math.inf))


def pattern_length(pattern: str) -> float:
    """Length of a regular expression with its counted repetitions written out, at most."""
    counts = (max(map(float, filter(None, match.groups()))) for match in _REPETITIONS.finditer(pattern))
    return len(pattern.encode("utf-8", "replace")) * math.prod(max(count, 1.0) for count in counts)


def refuse_deep(levels: int) -> None:
    """Refuse what refers too deep.

    Raises:
        RequestError: With the depth.
    """
    if levels > MAX_LEVELS:
        raise RequestError(
            f"Definitions, parts and brackets lead {levels} levels deep, and {MAX_LEVELS} are allowed: write "
            "short definitions out where they are used, and refer in smaller circles."
        )


def refuse_combinations(combinations: float) -> None:
    """Refuse patterns that are too long to hold for one text together.

    Args:
        combinations: The product of their lengths.

    Raises:
        RequestError: There are too many combinations.
    """
    if combinations > MAX_COMBINATIONS:
        raise RequestError(
            f"The lengths of patterns that one text must match at once multiply to {combinations:.1g}, and "
            f"{MAX_COMBINATIONS:.0g} is allowed: leave some of them out, and check them in the answer."
        )


def refuse_large(size: int) -> None:
    """Refuse a text that is too long.

    Raises:
        RequestError: With its bytes.
    """
    if size > MAX_BYTES:
        raise RequestError(f"{size} bytes are too many: {MAX_BYTES} are allowed, so give a shorter one.")
