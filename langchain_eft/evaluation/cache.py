"""A cache of answers and grades, by a hash of everything that they depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langchain_eft.jsonl import parse_line, split_lines


class Cache:
    """A mapping from hashes to JSON values in a file. Each entry is one line, which is written at once.

    Args:
        file: The file of the entries; None keeps them in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._entries: dict[str, Any] = {}
        self._torn = False
        if file is not None and file.is_file():
            self._read(file)

    def _read(self, file: Path) -> None:
        content = file.read_bytes()
        # An interruption in mid-line leaves no newline at the end: the next entry has to begin with one.
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in split_lines(content):
            try:
                row = parse_line(line)
                self._entries[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Any | None:
        """The value of a key, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: Any, **about: Any) -> None:
        """Store a value.

        Args:
            key: Hash of everything that the value depends on.
            value: A JSON value.
            about: Further members of the line, for readers of the file.
        """
        self._entries[key] = value
        if self._file is None:
            return
        line = json.dumps({"key": key, **about, "value": value}, ensure_ascii=False)
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(("\n" if self._torn else "") + line + "\n")
        self._torn = False
