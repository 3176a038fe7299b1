"""`python -m benchmarks.streaming`: the cost of LangChain's streams on top of the engine.

All ways of streaming decode the same greedy answer, in turns. The benchmark measures the CPU time of the
thread that consumes the stream. All work between the engine's events and the caller's loop happens there, and
other work on the machine does not change it. The cost of a way is this time minus that of the engine alone,
as a share of the decoding time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import take_turns
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.evaluation.results import markdown

PROMPT = "Tell me about whales."
NO_END = -100.0


@dataclass(frozen=True)
class Cost:
    """The cost of one stream.

    Attributes:
        consumer: CPU seconds of the consuming thread.
        decoding: Seconds of the whole stream.
        chunks: Chunks, or events, that arrived.
    """

    consumer: float
    decoding: float
    chunks: int


def ways(llm: EFTChatModel, tokens: int) -> dict[str, Callable[[], int]]:
    """Return the ways to stream one answer. Each returns the number of chunks."""
    engine = llm.engine
    options = {"max_tokens": tokens, "logit_bias": {engine.tokenizer.eos_token_id: NO_END}}
    request = llm.prepare_call([HumanMessage(PROMPT)], **options).only_request

    async def bare(request: GenerationRequest) -> int:
        return len([event async for event in engine.astream(request)])

    async def astream() -> int:
        return len([chunk async for chunk in llm.astream(PROMPT, **options)])

    return {
        "engine.stream": lambda: len(list(engine.stream(request))),
        "engine.astream": lambda: asyncio.run(bare(request)),
        "stream": lambda: len(list(llm.stream(PROMPT, **options))),
        'stream, output_version="v1"': lambda: len(list(llm.stream(PROMPT, output_version="v1", **options))),
        "astream": lambda: asyncio.run(astream()),
    }


def measure(way: Callable[[], int], _turn: int) -> Cost:
    """Measure one stream."""
    consumer, decoding = time.thread_time(), time.perf_counter()
    chunks = way()
    return Cost(time.thread_time() - consumer, time.perf_counter() - decoding, chunks)


def main(
    tokens: Annotated[int, typer.Option(help="Length of the answer.")] = 96,
    repeats: Annotated[int, typer.Option(help="The number of measured turns.")] = 5,
) -> None:
    """Measure every way in turns, and print a table of medians."""
    llm = EFTChatModel(temperature=0)
    contestants = {name: partial(measure, way) for name, way in ways(llm, tokens).items()}
    measured = take_turns(contestants, repeats)
    bare_consumer = statistics.median(cost.consumer for cost in measured["engine.stream"])
    rows = []
    for name, costs in measured.items():
        chunks = statistics.median(cost.chunks for cost in costs)
        consumer = statistics.median(cost.consumer for cost in costs)
        decoding = statistics.median(cost.decoding for cost in costs)
        share = (consumer - bare_consumer) / decoding
        each, step = 1e6 * consumer / chunks, 1e3 * decoding / chunks
        rows.append([name, f"{chunks:.0f}", f"{each:.0f}", f"{step:.2f}", f"{share:.2%}"])
    header = ["way", "chunks", "consumer, us per chunk", "decoding, ms per chunk", "over the bare engine"]
    print(markdown(header, rows))


if __name__ == "__main__":
    typer.run(main)
