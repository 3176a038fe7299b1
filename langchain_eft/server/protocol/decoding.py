"""Several requests of one HTTP request, decoded together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

Numbered = tuple[int, TextDelta | Finished]


async def decode(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    timeout: float | None,  # noqa: ASYNC109
) -> AsyncGenerator[Numbered, None]:
    """The events of all requests as they come, each with the number of its request.

    The first request begins alone, so that the prefix which all prompts share is computed once. Closing the
    generator cancels all requests.

    Args:
        engine: Decodes them.
        requests: What to decode.
        timeout: Seconds that each answer may take.

    Raises:
        EngineError: As `Engine.astream`. The other answers are then cancelled.
    """
    events: asyncio.Queue[Numbered | BaseException] = asyncio.Queue()

    async def run(number: int) -> None:
        async for event in engine.astream(requests[number], timeout):
            events.put_nowait((number, event))

    def start(number: int) -> asyncio.Task[None]:
        task = asyncio.create_task(run(number))
        task.add_done_callback(report)
        return task

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            events.put_nowait(error)

    tasks = [start(0)]
    running = len(requests)
    try:
        while running:
            event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if len(tasks) < len(requests):
                tasks += [start(number) for number in range(1, len(requests))]
            running -= isinstance(event[1], Finished)
            yield event
    finally:
        for task in tasks:
            task.cancel()
