"""Text for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def shown(value: object) -> str:
    """A value as it is written in Python, shortened to 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:197]}..."


def quoted_names(names: Iterable[str]) -> str:
    """The names sorted, quoted and separated by commas, or "none" if there are no names."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"
