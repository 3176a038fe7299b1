"""JSON Lines: files with one JSON value a line."""

from __future__ import annotations

import json
from typing import Any

from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.engine.nesting import is_deeper

DEEPEST = 64
"""Most arrays and objects inside one another. Far deeper ones end in Python's recursion limit."""


def split_lines(content: bytes) -> list[bytes]:
    """The lines of a file, which end at line feeds alone: JSON leaves U+2028, U+2029 and U+0085 as they are.

    Blank lines at the end are left out.
    """
    lines = content.rstrip()
    return lines.split(b"\n") if lines else []


def parse_line(line: bytes) -> Any:
    """The JSON value of a line.

    Raises:
        ValueError: It is not JSON in UTF-8, is nested too deeply, or has half a character.
    """
    try:
        value = json.loads(line.decode("utf-8"))
        nested = is_deeper(value, DEEPEST)
    except RecursionError:
        nested = True
    if nested:
        raise ValueError(f"more than {DEEPEST} arrays and objects are inside one another")
    refuse_surrogates(value)
    return value
