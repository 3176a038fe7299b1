"""What was asked before is not asked again: answers and grades, by a hash of all that they follow from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Cache:
    """A mapping from hashes to JSON that survives interruptions: every entry is a line, written at once.

    Args:
        file: Where the lines are; None keeps them in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._entries: dict[str, Any] = {}
        self._torn = False
        if file is not None and file.is_file():
            self._read(file)

    def _read(self, file: Path) -> None:
        content = file.read_text(encoding="utf-8")
        # Whoever was interrupted in mid-line left no newline: the next entry begins one.
        self._torn = bool(content) and not content.endswith("\n")
        for line in content.splitlines():
            try:
                row = json.loads(line)
                self._entries[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Any | None:
        """What is stored there, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: Any, **about: Any) -> None:
        """Store a value, with whatever helps people who read the file."""
        self._entries[key] = value
        if self._file is None:
            return
        line = json.dumps({"key": key, **about, "value": value}, ensure_ascii=False)
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(("\n" if self._torn else "") + line + "\n")
        self._torn = False
