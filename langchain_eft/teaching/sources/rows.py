"""Rows of examples: lines of a JSONL file, or rows of a data set on the hub or in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_eft.jsonl import parse_line, split_lines
from langchain_eft.teaching.errors import TeachingError

Row = tuple[str, dict[str, Any]]
"""Where a row stands (`line 3`), and its fields."""


def read_jsonl(file: Path) -> Iterator[Row]:
    """The lines of a JSONL file. Blank lines are refused, because they may be lost examples.

    Raises:
        TeachingError: The file cannot be read, or a line is not a JSON object.
    """
    try:
        lines = split_lines(file.read_bytes())
    except OSError as error:
        raise TeachingError(f"{str(file)!r} cannot be read ({error}): give a JSONL file in UTF-8.") from error
    if not lines:
        raise TeachingError(f"{str(file)!r} is empty: write one example a line.")
    for number, line in enumerate(lines, start=1):
        place = f"line {number}"
        if not line.strip():
            raise TeachingError(f"{str(file)!r}, {place} is empty: remove it, or write an example.")
        try:
            row = parse_line(line)
        except ValueError as error:
            raise TeachingError(
                f"{str(file)!r}, {place} is not readable JSON ({error}): write one JSON object a line."
            ) from error
        if not isinstance(row, dict):
            raise TeachingError(f'{str(file)!r}, {place} is not a JSON object: write {{"messages": [...]}}.')
        yield place, row


def read_dataset(name: str) -> tuple[Iterator[Row], str | None]:
    """The rows of a data set's training split, and its license if the hub knows it.

    Raises:
        TeachingError: The data set cannot be loaded.
    """
    from datasets import Dataset, load_dataset, load_from_disk

    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_info.json").is_file():
            data: Any = load_from_disk(str(folder))
        else:
            source = str(folder) if folder.exists() else name
            data = load_dataset(source, split="train", trust_remote_code=False)
    except Exception as error:  # the libraries below raise errors of many kinds
        raise TeachingError(
            f"The source {name!r} is not a .jsonl file, and no data set of this name can be loaded "
            f"({type(error).__name__}: {error}): give a .jsonl file, a folder that `save_to_disk` wrote, or "
            "the hub id of a data set with a split 'train'."
        ) from error
    if not isinstance(data, Dataset):
        raise TeachingError(f"{name!r} holds several splits {list(data)}: give the folder of one of them.")
    rows = ((f"row {i}", _without_nones(row)) for i, row in enumerate(data))
    return rows, data.info.license or None


def _without_nones(row: Any) -> Any:
    """A row without null fields: Arrow gives every message all fields that any message has."""
    if isinstance(row, dict):
        return {key: _without_nones(value) for key, value in row.items() if value is not None}
    return [_without_nones(item) for item in row] if isinstance(row, list) else row
