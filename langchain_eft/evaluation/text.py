"""JSON in the text of answers."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"\A```(?:\w+)?\s*\n(.*?)\n?```\Z", re.DOTALL)


def json_value(text: str) -> Any | None:
    """The value of a JSON text, with or without a code fence; None where it is not JSON."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(fenced[1] if fenced else stripped)
    except ValueError:
        return None


def last_json_object(text: str) -> dict[str, Any] | None:
    """The last JSON object within a text; None where there is none."""
    decoder, last, start = json.JSONDecoder(), None, text.find("{")
    while start >= 0:
        try:
            value, start = decoder.raw_decode(text, start)
        except ValueError:
            value, start = None, start + 1
        if isinstance(value, dict):
            last = value
        start = text.find("{", start)
    return last
