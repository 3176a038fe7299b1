"""`/v1/completions`: texts or token ids to continue. A remote engine needs no more than this route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from langchain_eft.chat.chunks import usage
from langchain_eft.chat.parameters import answer_count, reseeded
from langchain_eft.chat.prompts import Prompts
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Finished
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.llms import completion_chunk, completion_request
from langchain_eft.server.protocol.answers import Answers
from langchain_eft.server.protocol.bodies import CompletionBody, at_most_answers, by_name
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.text_logprobs import TextLogprobs
from langchain_eft.server.routes.models import requested_mixture
from langchain_eft.server.routes.recipe import require_match
from langchain_eft.trace.writer import TraceWriter

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine
    from langchain_eft.server.monitoring.request_record import RequestRecord
    from langchain_eft.server.serving import Serving

router = APIRouter(route_class=BodyRoute, dependencies=[Depends(require_match)])


@router.post("/v1/completions")
async def create_completion(body: CompletionBody, request: Request) -> Response:
    """Continue texts, whole or as a stream."""
    serving, record = request.app.state.serving, request.state.record
    engine, mixture = serving.engine, requested_mixture(request, body)
    record.stream = bool(body.stream)
    requests = await serving.threads.run(request, _requests, serving, body, mixture)
    turns = serving.threads.turns(request)
    return await TextAnswers(body, engine, record, requests, serving.llm.timeout, turns).respond(request)


def _requests(serving: Serving, body: CompletionBody, mixture: Mixture) -> list[GenerationRequest]:
    """What the engine decodes: the answers to one prompt are neighbors."""
    answers = answer_count(body.n or 1)
    at_most_answers(len(body.prompts) * answers)
    parameters = {**body.decoding, "mixture": mixture.weights}
    decoding = serving.llm.decoding_parameters(body.stop, parameters)
    fields = {
        "grammar": body.grammar,
        "visible_tokens": frozenset(body.visible_tokens or ()),
        "top_logprobs": body.logprobs,
    }
    requests = [
        completion_request(serving.engine, _read(prompt, body), decoding, **fields) for prompt in body.prompts
    ]
    return [each for request in requests for each in reseeded(request, answers)]


def _read(prompt: str | list[int], body: CompletionBody) -> str | Prompts:
    """A prompt as the models read it."""
    contexts = by_name(body.contexts)
    if contexts and len(body.prompts) > 1:
        raise RequestError(
            f"`contexts` go with one prompt, and there are {len(body.prompts)}: send a request for each."
        )
    if isinstance(prompt, list):
        return Prompts(tuple(prompt), contexts)
    if contexts:
        raise RequestError(
            "`contexts` go with a prompt of token ids: give `prompt` as token ids, or leave `contexts` out."
        )
    return prompt


class TextAnswers(Answers):
    """The continuations of texts.

    Args:
        body: What was asked.
        engine: Decodes the answers.
        record: What is logged about the request.
        requests: What is decoded.
        timeout: Seconds that each answer may take.
        turns: Held while a thread prepares an answer.
    """

    id_prefix = "cmpl-"
    kinds = ("text_completion", "text_completion")

    def __init__(
        self,
        body: CompletionBody,
        engine: Engine,
        record: RequestRecord,
        requests: Sequence[GenerationRequest],
        timeout: float | None,
        turns: asyncio.Semaphore,
    ) -> None:
        super().__init__(body, record)
        self._engine, self._requests, self._timeout, self._turns = engine, requests, timeout, turns

    async def pieces(self) -> AsyncGenerator[dict[str, Any], None]:
        """The choices of all answers, piece by piece as they are decoded."""
        writers = [TraceWriter(self._engine.tokenizer) for _ in self._requests]
        logprobs = [TextLogprobs(self._engine.tokenizer) for _ in self._requests]
        events_of_all = self._engine.astream_all(self._requests, self._timeout, self._turns)
        async with aclosing(events_of_all) as events:
            async for number, event in events:
                request, first = self._requests[number], number not in self.begun
                chunk = completion_chunk(request, event, writers[number])
                info = chunk.generation_info or {}
                piece: dict[str, Any] = {
                    "index": number,
                    "text": chunk.text,
                    "logprobs": None,
                    "finish_reason": info.get("finish_reason"),
                    **{name: info[name] for name in ("trace", "eft") if name in info},
                }
                if isinstance(event, Finished):
                    self.count_answer(number, event, event.reason, usage(event))
                else:
                    piece |= self.count_tokens(number, event)
                    piece["logprobs"] = logprobs[number].write(event)
                if self.body.return_token_ids and first:
                    piece["prompt_token_ids"] = list(request.prompt_ids)
                yield piece
