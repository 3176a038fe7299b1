"""Text for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def quoted_names(names: Iterable[str]) -> str:
    """The names sorted, quoted and separated by commas, or "none" if there are no names."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"
