"""What callers use of an engine, and the ways to read its answers: streamed or whole, blocking or not."""

from __future__ import annotations

import asyncio
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.errors import RequestTimeoutError
from langchain_eft.engine.events import Event, Failed, Finished, TextDelta
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.request import AnswerScores, Generation, GenerationRequest, GivenAnswers


class BaseEngine(ABC):
    """An engine. `Engine` decodes in this process; `RemoteEngine` lets a server decode."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The models, by name, and the behaviors that can be mixed."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's base, with the recipe's chat template."""

    @property
    @abstractmethod
    def capacity(self) -> Capacity:
        """How many tokens prompts and answers may have."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether it is closed, or is of no use any more."""

    @property
    def holds_calls(self) -> bool:
        """Whether calls of tools are held to their schema by default, because a grammar costs little here."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Cancel what is running, and free everything. Idempotent."""

    @property
    def window(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.capacity.window

    def max_output_tokens(self, *prompt_lengths: int) -> int:
        """Tokens that an answer may have; negative where its prompts alone do not fit.

        Args:
            prompt_lengths: Length of the prompt, or of each prompt where the mixture compares several.
        """
        return self.capacity.max_output_tokens(*prompt_lengths)

    # Given answers

    @abstractmethod
    def score(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """The implicit reward of answers: `sum_t log F(y_t | ...) - log S(y_t | ...)` of one behavior.

        A fine-tuned model is its reference tilted towards a reward (Mitchell et al. 2023, section 3.2). This
        is that reward in units of the fine-tuning's beta, up to a constant that depends on the prompt alone.

        Args:
            behavior: Which behavior.
            prompt: Token ids, at least one.
            answers: Token ids of each answer, at least one each.
            contexts: What F and S read instead of the prompt, by name.

        Raises:
            RecipeError: A behavior that the recipe lacks.
            RequestError: Nothing to score, a prompt that is missing, or token ids outside the vocabulary; or
                a server of vLLM, which scores nothing.
            ContextWindowError: Prompt and answer do not fit.
            EngineClosedError: The engine was closed.
        """

    @abstractmethod
    def answer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """Log p of every token of given answers. What prompts and answers have in common runs once.

        Args:
            given: Prompts with their answers; a server wants the same mixture for all.

        Raises:
            RecipeError: A mixture that the recipe cannot decode.
            RequestError: Nothing to score, a prompt that is missing, or token ids outside the vocabulary; or
                a server of vLLM, which scores nothing.
            ContextWindowError: Prompt and answer do not fit.
            DecodingError: A model's outputs are NaN.
            EngineClosedError: The engine was closed.
        """

    @abstractmethod
    async def aanswer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """As `answer_logprobs`, without blocking the event loop."""

    # Requests

    @abstractmethod
    def _prepare(
        self, request: GenerationRequest, deliver: Callable[[Event], None]
    ) -> Callable[[], Generation]:
        """Check a request, and do everything for it that takes time; returns what starts it, at once."""

    def submit(self, request: GenerationRequest, deliver: Callable[[Event], None]) -> Generation:
        """Start a request. Its events are delivered from another thread.

        Args:
            request: What to decode.
            deliver: Receives the events; must not block.

        Raises:
            ContextWindowError: Prompt and answer do not fit.
            RecipeError: A mixture that the recipe cannot decode.
            RequestError: Token ids outside the vocabulary, or a grammar that does not compile.
            QueueFullError: Too many requests wait already.
            EngineClosedError: The engine was closed.
        """
        return self._prepare(request, deliver)()

    def stream(
        self, request: GenerationRequest, timeout: float | None = None
    ) -> Generator[TextDelta | Finished, None, None]:
        """Decode a request; closing the iterator cancels it.

        Args:
            request: What to decode.
            timeout: Seconds that the whole answer may take.

        Raises:
            EngineError: As `submit`, when decoding fails, or when time is up.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        yield from _received(self.submit(request, events.put), events, timeout)

    async def astream(
        self,
        request: GenerationRequest,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        turn: AbstractAsyncContextManager[Any] | None = None,
    ) -> AsyncGenerator[TextDelta | Finished, None]:
        """Decode a request without blocking the event loop; closing or cancelling cancels it.

        Args:
            request: What to decode.
            timeout: Seconds that the whole answer may take.
            turn: Held while a thread prepares the request, so that several requests take one thread.

        Raises:
            EngineError: As `submit`, when decoding fails, or when time is up.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        # A thread prepares, for that takes time. Starting takes none, so no cancellation comes in between.
        async with turn or nullcontext():
            start = await asyncio.to_thread(self._prepare, request, deliver)
            generation = start()
        try:
            while True:
                try:
                    remaining = _remaining_seconds(generation, timeout)
                    event = _raise_failure(await asyncio.wait_for(events.get(), remaining))
                except TimeoutError:
                    raise RequestTimeoutError.after(timeout) from None
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            generation.cancel()

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        timeout: float | None = None,
    ) -> list[list[TextDelta | Finished]]:
        """Decode requests together; returns the events of each.

        Args:
            requests: What to decode.
            timeout: Seconds that each answer may take.

        Raises:
            EngineError: As `stream`. The other answers are then cancelled.
        """
        generations: list[Generation] = []
        streams: list[Generator[TextDelta | Finished, None, None]] = []
        try:
            for request in requests:
                events = queue.SimpleQueue[Event]()
                generations.append(self.submit(request, events.put))
                streams.append(_received(generations[-1], events, timeout))
            return [list(stream) for stream in streams]
        finally:
            for generation in generations:
                generation.cancel()

    async def agenerate(
        self,
        requests: Sequence[GenerationRequest],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[list[TextDelta | Finished]]:
        """As `generate`, without blocking the event loop; cancelling it cancels all requests."""
        answers: list[list[TextDelta | Finished]] = [[] for _ in requests]
        async with aclosing(self.astream_all(requests, timeout)) as events:
            async for number, event in events:
                answers[number].append(event)
        return answers

    async def astream_all(
        self,
        requests: Sequence[GenerationRequest],
        timeout: float | None = None,  # noqa: ASYNC109
        turn: AbstractAsyncContextManager[Any] | None = None,
    ) -> AsyncGenerator[tuple[int, TextDelta | Finished], None]:
        """Decode requests together; yields their events as they come, each with the number of its request.

        Closing or cancelling cancels all requests.

        Args:
            requests: What to decode.
            timeout: Seconds that each answer may take.
            turn: Held while a thread prepares a request; by default, one thread prepares all of them.

        Raises:
            EngineError: As `astream`. The other answers are then cancelled.
        """
        arrived: asyncio.Queue[tuple[int, TextDelta | Finished] | BaseException] = asyncio.Queue()
        turn = turn or asyncio.Lock()

        async def run(number: int) -> None:
            async for event in self.astream(requests[number], timeout, turn=turn):
                arrived.put_nowait((number, event))

        def report(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                arrived.put_nowait(error)

        tasks, running = [asyncio.create_task(run(number)) for number in range(len(requests))], len(requests)
        for task in tasks:
            task.add_done_callback(report)
        try:
            while running:
                event = await arrived.get()
                if isinstance(event, BaseException):
                    raise event
                running -= isinstance(event[1], Finished)
                yield event
        finally:
            for task in tasks:
                task.cancel()


def _remaining_seconds(generation: Generation, timeout: float | None) -> float | None:
    """Seconds that an answer may still take."""
    return None if timeout is None else max(generation.submitted + timeout - time.perf_counter(), 0)


def _received(
    generation: Generation, events: queue.SimpleQueue[Event], timeout: float | None
) -> Generator[TextDelta | Finished, None, None]:
    """The events of a submitted request; closing the generator cancels the request."""
    try:
        while True:
            try:
                event = _raise_failure(events.get(timeout=_remaining_seconds(generation, timeout)))
            except queue.Empty:
                raise RequestTimeoutError.after(timeout) from None
            yield event
            if isinstance(event, Finished):
                return
    finally:
        generation.cancel()


def _raise_failure(event: Event) -> TextDelta | Finished:
    if isinstance(event, Failed):
        raise event.error
    return event
