"""A remote engine: requests that a server decodes, behind the calls of an engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import httpx
from pydantic_core import to_json

from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import (
    CheckpointNotFoundError,
    EngineClosedError,
    EngineError,
    EngineUnreachableError,
    RequestError,
)
from langchain_eft.engine.events import Event, Failed, Finished
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import AnswerScores, Generation, GenerationRequest, GivenAnswers
from langchain_eft.remote.answer_reader import AnswerReader, Piece
from langchain_eft.remote.connection import Connection, body, connection
from langchain_eft.remote.eft_server import EFTServer
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.error_table import ServerChangedError
from langchain_eft.remote.errors import malformed
from langchain_eft.remote.event_stream import event_data
from langchain_eft.remote.server import Server
from langchain_eft.remote.vllm_server import VLLMServer
from langchain_eft.remote.wire import LARGEST_LISTING, Logprobs, Models, Rewards

_DONE = b"[DONE]"

_REST_SECONDS = 3.0
"""Time for what a server says behind an answer: it counts tokens, and ends the body."""

_LINE_BYTES = 2**20
_BYTES_PER_ID = 16
"""Bytes that a line of an answer may have: it may repeat the prompt, by its ids."""

_BYTES_PER_TOKEN = 64 * 2**10
"""Further bytes that an answer may have for each token, whose trace has a few thousand."""


@dataclass
class _RemoteGeneration(Generation):
    """A request that a server decodes."""

    work: Future[None] | None = None

    def cancel(self) -> None:
        """Close the connection, by which the server learns that nobody waits. Idempotent."""
        super().cancel()
        if self.work is not None:
            self.work.cancel()


class _Prepared(NamedTuple):
    """A request that is ready to be sent.

    Attributes:
        generation: The handle of the caller.
        content: The body.
        reader: Reads the answer.
    """

    generation: _RemoteGeneration
    content: bytes
    reader: AnswerReader


class RemoteEngine(BaseEngine):
    """A model on a server, which decodes requests as an engine of this process would.

    Prompts are rendered here, and answers read here: token ids go there, and token ids come back.

    Args:
        endpoint: The server, and its model.
        progress: Receives messages while the server is asked what it serves.

    Raises:
        EngineError: The server cannot be reached, refuses, or serves no such model.
    """

    def __init__(self, endpoint: Endpoint, progress: Progress = silent) -> None:
        self.endpoint = endpoint
        self._closed, self._process = False, os.getpid()
        self._running: dict[int, _RemoteGeneration] = {}
        self._connection = connection()
        progress(f"Asking {endpoint.url}")
        with _as_engine_errors(endpoint):
            self._server = _find_server(endpoint, self._connection)

    @property
    def name(self) -> str:
        """The model's name, as the caller or the server gives it."""
        return self._server.model.name

    @property
    def recipe(self) -> Recipe:
        """Names of the model's weights, and the behaviors that can be mixed."""
        return self._server.model.recipe

    @property
    def mixture(self) -> Mixture:
        """The mixture of calls that give none."""
        return self._server.model.mixture

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's base, with the recipe's chat template."""
        return self._server.model.tokenizer

    @property
    def capacity(self) -> Capacity:
        """How many tokens prompts and answers may have."""
        return self._server.model.capacity

    @property
    def holds_calls(self) -> bool:
        """Whether calls of tools are held to their schema by default: not on vLLM, where that costs more."""
        return self._server.scores

    @property
    def closed(self) -> bool:
        """Whether `close` was called, the server has other models now, or this process is a fork."""
        return self._closed or self._process != os.getpid()

    def score(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """The implicit reward of answers, as `BaseEngine.score`."""
        if not self._server.scores:
            raise RequestError(
                f"vLLM cannot score answers by the behavior {behavior!r}: use `langchain-eft serve`, or an "
                "engine in this process."
            )
        model = self._server.model.id
        texts = {"prompt": prompt, "answers": answers, "contexts": dict(contexts or {}) or None}
        body = {"model": model, "behavior": behavior, **texts}
        with _as_engine_errors(self.endpoint), self._reopening_if_changed():
            answer = self._connection.post(self.endpoint, "/rewards", body, self._server.headers())
            return Rewards.model_validate_json(answer.content).rewards

    def answer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """Log p of every token of given answers, as `BaseEngine.answer_logprobs`."""
        body = self._logprobs_body(given)
        with _as_engine_errors(self.endpoint), self._reopening_if_changed():
            return _scores(self._connection.post(self.endpoint, "/logprobs", body, self._server.headers()))

    async def aanswer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """As `answer_logprobs`, without blocking the event loop."""
        body = self._logprobs_body(given)
        with _as_engine_errors(self.endpoint), self._reopening_if_changed():
            return _scores(
                await self._connection.apost(self.endpoint, "/logprobs", body, self._server.headers())
            )

    def _logprobs_body(self, given: Sequence[GivenAnswers]) -> dict[str, Any]:
        """The body of a request to `/logprobs`.

        Raises:
            RequestError: vLLM, which scores nothing; or nothing to score, or several mixtures.
        """
        if not self._server.scores:
            raise RequestError(
                "vLLM cannot score given answers: use `langchain-eft serve`, or an engine in this process."
            )
        forms = {(e.request.mixture, e.request.upscale_strength, e.request.upscale_top_p) for e in given}
        if len(forms) != 1:
            raise RequestError(
                f"{len(given)} prompts with {len(forms)} mixtures cannot be scored by one request: give at "
                "least one prompt, and the same mixture and up-scaling for all."
            )
        (mixture, upscale_strength, upscale_top_p), *_ = forms
        return {
            "model": self._server.model.id,
            "mixture": mixture.as_json(),
            "upscale_strength": upscale_strength,
            "upscale_top_p": upscale_top_p,
            "given": [
                {
                    "prompt": each.request.prompt_ids,
                    "contexts": dict(each.request.contexts) or None,
                    "answers": each.answers,
                }
                for each in given
            ],
        }

    def close(self) -> None:
        """Cancel what is running; a later call of a model asks the server anew. Idempotent."""
        self._closed = True
        for generation in list(self._running.values()):
            generation.cancel()
            generation.deliver(Failed(EngineClosedError("The engine was closed while the request ran.")))

    # Requests

    def _prepare(
        self, request: GenerationRequest, deliver: Callable[[Event], None]
    ) -> Callable[[], Generation]:
        prompts = {request.prompt_ids, *request.contexts.values()}
        self.capacity.check([*map(len, prompts)], len(request.answer_prefix), request.max_tokens)
        generation = _RemoteGeneration(request, deliver)
        reader = AnswerReader(request, self._server.model, generation.submitted)
        return partial(self._start, _Prepared(generation, to_json(self._server.body(request)), reader))

    def _start(self, prepared: _Prepared) -> Generation:
        if self.closed:
            raise EngineClosedError("The engine was closed: call the model again.")
        generation = prepared.generation
        self._running[id(generation)] = generation
        generation.work = self._connection.start(self._run(prepared))
        generation.work.add_done_callback(lambda _: self._running.pop(id(generation), None))
        return generation

    @contextmanager
    def _reopening_if_changed(self) -> Iterator[None]:
        """Let the next call ask anew what the server serves, if it has other models now."""
        try:
            yield
        except ServerChangedError:
            self._closed = True
            raise

    async def _run(self, prepared: _Prepared) -> None:
        """Let the server decode a request, and deliver the events; whatever fails is the last one."""
        try:
            event: Event = await self._read(prepared)
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller waits for it)
            event = Failed(self._translated(error, prepared.reader.num_tokens))
        if not prepared.generation.cancelled:
            prepared.generation.deliver(event)

    def _translated(self, error: Exception, num_tokens: int) -> Exception:
        """What the caller is told."""
        url = self.endpoint.url
        if isinstance(error, httpx.HTTPError):
            reason = str(error)[:200] or type(error).__name__
            broken = EngineUnreachableError(
                f"The connection to {url} breaks after {num_tokens} tokens of the answer ({reason}): call "
                "again once the server runs."
            )
            broken.__cause__ = error
            return broken
        if isinstance(error, ValueError) and not isinstance(error, EngineError):
            return malformed(url, error)
        return error

    async def _read(self, prepared: _Prepared) -> Finished:
        """Deliver the text of an answer as it arrives. Returns its end.

        Raises:
            EngineError: The server refuses, or ends the answer by an error.
            HTTPError: The connection breaks.
        """
        generation, content, reader = prepared
        headers = {"Content-Type": "application/json", **self._server.headers()}
        sending = self._connection.stream(
            self.endpoint, "POST", "/completions", content=content, headers=headers
        )
        request = generation.request
        longest = _LINE_BYTES + _BYTES_PER_ID * (len(request.prompt_ids) + len(request.answer_prefix))
        largest = longest + _BYTES_PER_TOKEN * request.max_tokens
        with self._reopening_if_changed():
            async with sending as response, aclosing(event_data(body(response, largest), longest)) as events:
                await self._read_answer(prepared, events)
                if reader.reason is not None and (self._server.matches_stops or not reader.stopped):
                    await self._read_rest(reader, events)
                # Otherwise the server would go on: leaving closes the connection, and with it the request.
        if reader.reason is None:
            raise EngineUnreachableError(
                f"{self.endpoint.url} ends the stream after {reader.num_tokens} tokens, before the answer "
                "has ended: call again."
            )
        return reader.finished(reader.reason)

    async def _read_answer(self, prepared: _Prepared, events: AsyncIterator[bytes]) -> None:
        """Read events, and deliver what they add, until the answer or the stream has ended."""
        generation, _, reader = prepared
        async for data in events:
            if data == _DONE:
                return
            delta = reader.feed(self._server.read(data))
            if delta is not None and not generation.cancelled:
                generation.deliver(delta)
            if reader.reason is not None:
                return

    async def _read_rest(self, reader: AnswerReader, events: AsyncIterator[bytes]) -> None:
        """Read what follows an answer, to the end of the body: then the connection can be used again.

        All tokens have arrived, so a connection that breaks now does no harm, and nobody waits for long.
        """
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                async for data in events:
                    piece = Piece() if data == _DONE else self._server.read(data)
                    if piece.tokens:
                        return
                    reader.feed(piece)


@contextmanager
def _as_engine_errors(endpoint: Endpoint) -> Iterator[None]:
    """Report what is no answer of a server of models as one error that names the address."""
    try:
        yield
    except EngineError:
        raise
    except ValueError as error:
        raise malformed(endpoint.url, error) from None


def _scores(answer: httpx.Response) -> AnswerScores:
    """What the server answers to a request for log-probabilities."""
    said = Logprobs.model_validate_json(answer.content)
    return AnswerScores(said.logprobs, said.usage.cached_tokens or 0)


def _find_server(endpoint: Endpoint, asked: Connection) -> Server:
    """The server behind an endpoint, and what it serves.

    Raises:
        CheckpointNotFoundError: It has no such model.
        EngineError: It cannot be reached, or refuses.
    """
    entries = Models.model_validate_json(asked.get(endpoint, "/models", LARGEST_LISTING).content).data
    owner, names = entries[0].owned_by, [entry.id for entry in entries]
    if owner == "langchain-eft":
        return EFTServer(endpoint, endpoint.model or names[0], asked)
    if owner == "vllm":
        named = [entry for entry in entries if endpoint.model in ("", entry.id)]
        if not named:
            raise CheckpointNotFoundError(
                f"{endpoint.url} has no model {endpoint.model!r}: it serves {quoted_names(names)}."
            )
        return VLLMServer(endpoint, named[0])
    raise CheckpointNotFoundError(
        f"{endpoint.url} belongs to a server of {owner!r}: give the address of `langchain-eft serve`, or of "
        "vLLM with a folder of `langchain-eft export`."
    )
