"""The answers to one HTTP request, whole or in pieces, in the form that both kinds of completions share."""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from fastapi import Request
from langchain_core.messages.ai import UsageMetadata
from starlette.responses import Response

from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.server.protocol.event_stream import event_stream, json_response
from langchain_eft.server.protocol.join import join
from langchain_eft.server.protocol.leaving import unless_left
from langchain_eft.server.protocol.usage import openai_usage

if TYPE_CHECKING:
    from langchain_eft.server.monitoring.request_record import RequestRecord
    from langchain_eft.server.protocol.bodies import DecodingBody


class Answers(ABC):
    """The answers to one HTTP request.

    Args:
        body: What was asked.
        record: What is logged about the request.

    Attributes:
        per_prompt: Answers to each prompt.
        begun: Numbers of the answers that have tokens.
    """

    id_prefix: ClassVar[str]
    kinds: ClassVar[tuple[str, str]]
    """OpenAI's names of the whole object and of a chunk."""

    def __init__(self, body: DecodingBody, record: RequestRecord) -> None:
        self.body, self.record = body, record
        self.per_prompt = body.n or 1
        self._id = f"{self.id_prefix}{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._usages: dict[int, UsageMetadata] = {}
        self.begun: set[int] = set()

    @abstractmethod
    def pieces(self) -> AsyncGenerator[dict[str, Any], None]:
        """The choices of all answers, piece by piece as they are decoded."""

    def whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice of the whole object, from its joined pieces."""
        return choice

    def prompt_ids(self) -> dict[str, Any]:
        """What the object says about its prompt, beside its choices."""
        return {}

    async def respond(self, request: Request) -> Response:
        """Answer the request as its body asks."""
        if self.body.stream:
            return await event_stream(request, self.chunks())
        return json_response(await unless_left(request, self.whole()))

    async def whole(self) -> dict[str, Any]:
        """The object with all answers, once they have ended."""
        choices: dict[int, list[dict[str, Any]]] = {}
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                choices.setdefault(piece["index"], []).append(piece)
        in_order = [choices[number] for number in sorted(choices)]
        return {
            **self._head(self.kinds[0]),
            "choices": await asyncio.to_thread(lambda: [self.whole_choice(join(each)) for each in in_order]),
            "usage": openai_usage(self._usages, self.per_prompt),
            **self.prompt_ids(),
        }

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a stream, which each hold a piece of an answer."""
        counted = self.body.includes_usage
        head = {**self._head(self.kinds[1]), **({"usage": None} if counted else {})}
        once = self.prompt_ids()
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                yield {**head, **once, "choices": [piece]}
                once = {}
        if counted:
            yield {**head, "choices": [], "usage": openai_usage(self._usages, self.per_prompt)}

    def count_tokens(self, number: int, event: TextDelta) -> dict[str, Any]:
        """Record the tokens of a round.

        Args:
            number: Number of the answer that they belong to.
            event: The round's part of it.

        Returns:
            What the piece says about them.
        """
        if number in self.begun or not self.body.answer_prefix:  # the prefix is not drawn
            self.record.delivered(number, event)
        self.begun.add(number)
        return {"token_ids": list(event.tokens)} if self.body.return_token_ids else {}

    def count_answer(self, number: int, event: Finished, reason: str, usage: UsageMetadata) -> None:
        """Record the end of an answer.

        Args:
            number: Its number.
            event: Its end.
            reason: Why it ended, in OpenAI's words.
            usage: Its tokens.
        """
        self.record.finished(event, reason, counts_prompt=number % self.per_prompt == 0)
        self._usages[number] = usage

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self.body.model}
