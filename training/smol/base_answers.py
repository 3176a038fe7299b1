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
        from langchain_eft.evaluation.cache import Cache

        self._known, self._progress = Cache(file), progress
        self._llm = EFTChatModel(mixture={}, temperature=0.0, max_tokens=max_tokens)

    def answer(self, conversations: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the answer to each conversation."""
        keys = [json.dumps(messages) for messages in conversations]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        for start in range(0, len(missing), TOGETHER):
            self._progress(f"The base answers: {start} of {len(missing)} requests")
            some = missing[start : start + TOGETHER]
            for key, answer in zip(some, self._llm.batch([json.loads(key) for key in some]), strict=True):
                message = {"role": "assistant", "content": str(answer.text).strip()}
                if answer.response_metadata["finish_reason"] == "length":
                    message["response_metadata"] = {"finish_reason": "length"}
                self._known.put(key, message)
        return [self._known.get(key) for key in keys]

    def close(self) -> None:
        """Free the weights."""
        self._llm.engine.close()
