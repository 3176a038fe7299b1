"""Reading what models write."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"\A```(?:\w+)?\s*\n(.*?)\n?```\Z", re.DOTALL)


def json_value(text: str) -> Any | None:
    """The JSON that a text is, a code fence around it or not; None if it is none."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(fenced[1] if fenced else stripped)
    except ValueError:
        return None


def last_json_object(text: str) -> dict[str, Any] | None:
    """The last JSON object within a text; None if there is none."""
    decoder, found, start = json.JSONDecoder(), None, text.find("{")
    while start >= 0:
        try:
            value, start = decoder.raw_decode(text, start)
        except ValueError:
            value, start = None, start + 1
        if isinstance(value, dict):
            found = value
        start = text.find("{", start)
    return found
