"""Where examples come from: a file, a data set, or a description of the behavior."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langchain_eft.engine.error_text import shown
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Example, Lesson
from langchain_eft.teaching.sources.conversations import read_conversation
from langchain_eft.teaching.sources.pairs import read_pair
from langchain_eft.teaching.sources.rows import Row, read_dataset, read_jsonl


def read_lesson(source: str, seed: int) -> Lesson:
    """The examples of a `.jsonl` file, or of a data set on the hub or in a folder.

    Rows have `messages` (a conversation), `prompt` and `completion` (a conversation of two messages), or
    `chosen` and `rejected` (a pair).

    Args:
        source: Path or hub id.
        seed: Of the split into learned and held-out examples.

    Raises:
        TeachingError: The source cannot be read, a row is malformed, or there are too few.
    """
    file = Path(source).expanduser()
    if file.suffix in (".jsonl", ".json") or file.is_file():
        rows: Iterable[Row] = read_jsonl(file)
        license_name = None
    else:
        rows, license_name = read_dataset(source)
    examples = [_example(source, place, row) for place, row in rows]
    kinds = {type(example) for example in examples}
    if len(kinds) > 1:
        other = next(example for example in examples if type(example) is not type(examples[0]))
        raise TeachingError(
            f"{source!r} mixes conversations and pairs, first at {other.place}: teach them as two behaviors."
        )
    return Lesson.split(source, examples, seed, license_name)


def _example(source: str, place: str, row: dict[str, Any]) -> Example:
    try:
        if "chosen" in row and "rejected" in row:
            return read_pair(place, row)
        if "messages" in row:
            return read_conversation(place, row)
        if "prompt" in row and "completion" in row:
            asked, answered = (
                _messages(place, row, "prompt", "user"),
                _messages(place, row, "completion", "assistant"),
            )
            return read_conversation(place, {**row, "messages": [*asked, *answered]})
    except TeachingError as error:
        raise TeachingError(f"{source!r}, {error}") from error
    raise TeachingError(
        f"{source!r}, {place} has the fields {sorted(row)}: write `messages` for a conversation, or "
        "`prompt`, `chosen` and `rejected` for a pair of answers."
    )


def _messages(place: str, row: dict[str, Any], field: str, role: str) -> list[Any]:
    value = row[field]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise TeachingError(f"{place} has {field}={shown(value)}: give a text or a list of messages.")
