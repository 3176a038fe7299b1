"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.messages.utils import convert_to_messages
from starlette.responses import Response

from langchain_eft.chat.prepare import PreparedCall, adecide
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.server.bodies import ChatBody
from langchain_eft.server.decoding import decode
from langchain_eft.server.event_stream import event_stream, json_bytes
from langchain_eft.server.leaving import unless_left
from langchain_eft.server.models import requested_mixture
from langchain_eft.server.request_record import RequestRecord

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(body: ChatBody, request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    serving, record = request.app.state.serving, request.state.record
    engine = serving.engine
    record.stream = bool(body.stream)
    mixture = requested_mixture(
        serving, request.state.caller, record, body.model, body.mixture, body.upscale_strength
    )
    parameters = {**body.parameters(), "mixture": mixture.weights, "stream_usage": True}
    messages = convert_to_messages(body.messages)
    call = await asyncio.to_thread(serving.llm.prepare_call, messages, body.stop, **parameters)
    answer = ChatAnswer(body, call, engine, record)
    if body.stream:
        return await event_stream(request, answer.chunks(), serving.settings.drain_seconds)
    completion = await unless_left(request, answer.whole())
    return Response(json_bytes(completion), media_type="application/json")


@dataclass
class ChatAnswer:
    """The answers to one conversation, in OpenAI's form.

    Attributes:
        body: What was asked.
        call: What is decoded for it.
        engine: Decodes it.
        record: What is logged about it.
        id: Its id.
        created: When it began, in seconds since 1970.
        usages: Tokens of the answers that have ended.
    """

    body: ChatBody
    call: PreparedCall
    engine: Engine
    record: RequestRecord
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    usages: dict[int, UsageMetadata] = field(default_factory=dict)

    async def whole(self) -> dict[str, Any]:
        """The completion, once all its answers have ended."""
        chunks: dict[int, list[AIMessageChunk]] = {}
        tokens: dict[int, list[int]] = {}
        async with aclosing(self._messages()) as messages:
            async for index, new, ids in messages:
                chunks.setdefault(index, []).extend(new)
                tokens.setdefault(index, []).extend(ids)
        return {
            **self._head("chat.completion"),
            "choices": [
                _choice(index, add_ai_message_chunks(*chunks[index]), "message", self._ids(tokens[index]))
                for index in sorted(chunks)
            ],
            "usage": usage(self.usages),
            **({"prompt_token_ids": self.call.requests[0].prompt_ids} if self.body.return_token_ids else {}),
        }

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The completion in pieces."""
        head = self._head("chat.completion.chunk")
        if self.body.includes_usage:
            head["usage"] = None
        opened: set[int] = set()
        async with aclosing(self._messages()) as messages:
            async for index, new, ids in messages:
                first = {} if opened else self._prompt_ids()
                if index not in opened:
                    opened.add(index)
                    delta = {"role": "assistant", "content": "", "refusal": None}
                    opening = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                    yield {**head, **first, "choices": [opening]}
                for message in new or ([AIMessageChunk("")] if self.body.return_token_ids and ids else ()):
                    yield {**head, "choices": [_choice(index, message, "delta", self._ids(ids))]}
                    ids = ()
        if self.body.includes_usage:
            yield {**head, "choices": [], "usage": usage(self.usages)}

    async def _messages(self) -> AsyncGenerator[tuple[int, list[AIMessageChunk], Sequence[int]], None]:
        """For every event: the number of the answer, the message chunks, and the token ids."""
        call = await adecide(self.engine, self.call)
        builders = [call.chunk_builder(request) for request in call.requests]
        async with aclosing(decode(self.engine, call.requests, call.timeout)) as events:
            async for index, event in events:
                if isinstance(event, TextDelta):
                    self.record.delivered(index, event)
                chunks = [cast("AIMessageChunk", chunk.message) for chunk in builders[index].feed(event)]
                if isinstance(event, Finished):
                    last = chunks[-1]
                    reason = last.response_metadata["finish_reason"]
                    self.record.finished(event, reason, counts_prompt=not self.usages)
                    self.usages[index] = cast("UsageMetadata", last.usage_metadata)
                yield index, chunks, event.tokens if isinstance(event, TextDelta) else ()

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": None,
            "service_tier": "default",
        }

    def _prompt_ids(self) -> dict[str, Any]:
        return {"prompt_token_ids": self.call.requests[0].prompt_ids} if self.body.return_token_ids else {}

    def _ids(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"token_ids": ids} if self.body.return_token_ids else {}


def _choice(index: int, message: AIMessageChunk, key: str, more: dict[str, Any]) -> dict[str, Any]:
    metadata = message.response_metadata
    logprobs = metadata.get("logprobs")
    return {
        "index": index,
        key: _message(message) if key == "message" else _delta(message),
        "logprobs": logprobs and {**logprobs, "refusal": None},
        "finish_reason": metadata.get("finish_reason"),
        **{name: metadata[name] for name in ("eft", "trace") if name in metadata},
        **more,
    }


def _delta(message: AIMessageChunk) -> dict[str, Any]:
    """What a chunk adds to a message."""
    calls = [
        {
            "index": call["index"],
            **({"id": call["id"], "type": "function"} if call["id"] else {}),
            "function": {
                **({"name": call["name"]} if call["name"] else {}),
                "arguments": call["args"] or "",
            },
        }
        for call in message.tool_call_chunks
    ]
    added = {
        "content": message.content,
        "reasoning_content": message.additional_kwargs.get("reasoning_content"),
        "tool_calls": calls,
    }
    return {name: value for name, value in added.items() if value}


def _message(message: AIMessageChunk) -> dict[str, Any]:
    """A whole message."""
    said = _delta(message)
    for call in said.get("tool_calls", ()):
        del call["index"]
    return {"role": "assistant", "content": None if "tool_calls" in said else "", "refusal": None, **said}


def usage(usages: dict[int, UsageMetadata]) -> dict[str, Any]:
    """The tokens of several answers to one prompt, in OpenAI's form."""
    prompt = usages[0]["input_tokens"]
    completion = sum(each["output_tokens"] for each in usages.values())
    details = {"cached_tokens": usages[0]["input_token_details"]["cache_read"]}
    reasoning = sum(each.get("output_token_details", {}).get("reasoning", 0) for each in usages.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
