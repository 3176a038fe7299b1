"""Answers of the base itself, kept in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from langchain_eft.engine.progress import Progress

TOGETHER = 32


class BaseAnswers:
    """The base's greedy answers to conversations.

    An answer is a message in LangChain's form. If it was cut off, its `response_metadata` says so, and
    `teach` does not learn its end.

    Args:
        file: Where answers are kept as they come; those that it holds are not asked for again.
        max_tokens: Longest answer.
        progress: Receives how many answers there are.
    """

    def __init__(self, file: Path, max_tokens: int, progress: Progress) -> None:
        from langchain_eft import EFTChatModel
        from langchain_eft.jsonl import parse_line, split_lines

        self._file, self._progress = file, progress
        self._llm = EFTChatModel(mixture={}, temperature=0.0, max_tokens=max_tokens)
        rows = map(parse_line, split_lines(file.read_bytes()) if file.is_file() else [])
        self._known: dict[str, dict[str, Any]] = {_key(row["messages"]): row["answer"] for row in rows}

    def answer(self, conversations: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the answer to each conversation."""
        asked = {_key(messages): messages for messages in conversations}
        missing = [messages for key, messages in asked.items() if key not in self._known]
        for start in range(0, len(missing), TOGETHER):
            self._progress(f"The base answers: {start} of {len(missing)} requests")
            some = missing[start : start + TOGETHER]
            with self._file.open("a", encoding="utf-8") as lines:
                for messages, answer in zip(some, self._llm.batch(some), strict=True):
                    message = {"role": "assistant", "content": str(answer.text).strip()}
                    if answer.response_metadata["finish_reason"] == "length":
                        message["response_metadata"] = {"finish_reason": "length"}
                    self._known[_key(messages)] = message
                    lines.write(json.dumps({"messages": messages, "answer": message}) + "\n")
        return [self._known[_key(messages)] for messages in conversations]

    def close(self) -> None:
        """Free the weights."""
        self._llm.engine.close()


def _key(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages)
