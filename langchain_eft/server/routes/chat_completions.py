"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from starlette.responses import Response

from langchain_eft.chat.prepare import PreparedCall
from langchain_eft.engine.events import Finished
from langchain_eft.server.protocol.answers import Answers
from langchain_eft.server.protocol.bodies import ChatBody
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.routes.models import requested_mixture

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.recipe.mixture import Mixture
    from langchain_eft.server.monitoring.request_record import RequestRecord

router = APIRouter(route_class=BodyRoute)


@router.post("/v1/chat/completions")
async def create_chat_completion(body: ChatBody, request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    serving, record = request.app.state.serving, request.state.record
    mixture = requested_mixture(request, body)
    record.stream = bool(body.stream)
    call = await serving.threads.run(request, _prepare, serving.llm, body, mixture)
    return await ChatAnswers(body, record, call, serving.threads.turns(request)).respond(request)


def _prepare(llm: EFTChatModel, body: ChatBody, mixture: Mixture) -> PreparedCall:
    """What the engine decodes, and how the answers are read."""
    messages = [message.as_langchain() for message in body.messages]
    parameters = {**body.parameters, "mixture": mixture.weights, "stream_usage": True}
    return llm.prepare_call(messages, body.stop, **parameters)


class ChatAnswers(Answers):
    """The answers to a conversation.

    Args:
        body: What was asked.
        record: What is logged about the request.
        call: What the body asks of the engine.
        turns: Held while a thread prepares an answer.
    """

    id_prefix = "chatcmpl-"
    kinds = ("chat.completion", "chat.completion.chunk")

    def __init__(
        self, body: ChatBody, record: RequestRecord, call: PreparedCall, turns: asyncio.Semaphore
    ) -> None:
        super().__init__(body, record)
        self._call, self._turns = call, turns
        self.per_prompt = len(call.requests)

    async def pieces(self) -> AsyncGenerator[dict[str, Any], None]:
        """The choices of all answers, piece by piece as they are decoded."""
        call = await self._call.adecide()
        builders = [call.chunk_builder(request) for request in call.requests]
        async with aclosing(call.engine.astream_all(call.requests, call.timeout, self._turns)) as events:
            async for number, event in events:
                if number not in self.begun:
                    yield _choice(number, {"role": "assistant", "content": "", "refusal": None})
                chunks = builders[number].feed(event)
                messages = [cast("AIMessageChunk", chunk.message) for chunk in chunks]
                if isinstance(event, Finished):
                    last = messages[-1]
                    reason, usage = last.response_metadata["finish_reason"], last.usage_metadata
                    self.count_answer(number, event, reason, cast("UsageMetadata", usage))
                    ids = {}
                else:
                    ids = self.count_tokens(number, event)
                if ids and not messages:
                    yield {**_choice(number, {}), **ids}
                for message in messages:
                    yield {**_choice(number, _delta(message), message.response_metadata), **ids}

    def whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice of the whole object, from its joined pieces."""
        message = choice.pop("delta")
        for call in message.get("tool_calls", ()):
            del call["index"]
        if not message["content"] and "tool_calls" in message:
            message["content"] = None
        return {"index": choice.pop("index"), "message": message, **choice}

    def prompt_ids(self) -> dict[str, Any]:
        """The token ids of the conversation, if they are asked for."""
        ids = list(self._call.requests[0].prompt_ids)
        return {"prompt_token_ids": ids} if self.body.return_token_ids else {}


def _choice(number: int, delta: dict[str, Any], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """A piece of an answer.

    Args:
        number: Number of the answer.
        delta: What the piece adds to the message.
        metadata: The message chunk's.
    """
    metadata = metadata or {}
    logprobs = metadata.get("logprobs")
    return {
        "index": number,
        "delta": delta,
        "logprobs": logprobs and {**logprobs, "refusal": None},
        "finish_reason": metadata.get("finish_reason"),
        **{name: metadata[name] for name in ("trace", "eft") if name in metadata},
    }


def _delta(message: AIMessageChunk) -> dict[str, Any]:
    """What a message chunk adds to the message."""
    calls = [
        {
            "index": call["index"],
            **({"id": call["id"], "type": "function"} if call["id"] else {}),
            "function": {**({"name": call["name"]} if call["name"] else {}), "arguments": call["args"] or ""},
        }
        for call in message.tool_call_chunks
    ]
    added = {
        "content": message.content,
        "reasoning_content": message.additional_kwargs.get("reasoning_content"),
        "tool_calls": calls,
    }
    return {name: value for name, value in added.items() if value}
