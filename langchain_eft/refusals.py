"""Whether an answer declines what was asked."""

from __future__ import annotations

import re

_REFUSAL = re.compile(r"can't|cannot|won't|not able to|sorry")


def refusal(text: str, within: int | None = None) -> str | None:
    """The words by which an answer refuses, or None if it does not.

    Args:
        text: The answer.
        within: Characters at its beginning that count; None counts all.
    """
    match = _REFUSAL.search(text[:within].replace("\u2019", "'"))
    return match[0] if match else None
