"""Whether an answer declines what was asked."""

from __future__ import annotations

import re

REFUSALS = "can['\u2019]t|cannot|won['\u2019]t|not able to|sorry"
"""A regular expression of the words of which a refusal has one."""


def refusal(text: str, within: int | None = None) -> str | None:
    """The words by which an answer refuses, or None if it does not.

    Args:
        text: The answer.
        within: Characters at its beginning that count; None counts all.
    """
    match = re.search(REFUSALS, text[:within])
    return match[0] if match else None
