"""`python -m benchmarks.server`: the cost of HTTP on top of the engine.

One process serves the smol family with `langchain-eft serve`; this one decodes the same requests in
process. Both take turns, and only one computes at a time. Answers have a fixed length.

The first table compares the tokens per second of many clients, for whole answers and for streams, with
`abatch` of the same requests. The second compares the time to the first bytes of a stream, whose prompt is in
the prefix cache, with the time to the first event of the same request in process: its preparation and
`engine.astream`. Their difference is what HTTP adds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import typer
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import Spread

TOPICS = ("whales", "ships", "rain", "bread", "maps", "clocks", "bees", "chess", "rivers", "glass", "stars",
          "trains", "salt", "paper", "wind", "music")  # fmt: skip
KV_TOKENS, PATIENCE = 16384, 300


def prompt(number: int) -> str:
    """The prompt of one client."""
    return f"Tell me about {TOPICS[number % len(TOPICS)]}."


@asynccontextmanager
async def server() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a new server process, once its weights are loaded."""
    command = [
        sys.executable,
        "-m",
        "langchain_eft",
        "serve",
        "--port",
        "0",
        "--kv-cache-tokens",
        str(KV_TOKENS),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})  # noqa: ASYNC220, S603
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"ready"' in line:
                break
        else:
            raise RuntimeError("".join(lines))
        url = next(line.split()[2].rstrip(";") for line in lines if line.startswith("Serving on"))
        drain = asyncio.create_task(
            asyncio.to_thread(process.stderr.read)
        )  # a full pipe would stop the server
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
            yield client
        process.kill()
        await drain
    finally:
        process.kill()
        process.wait()


class Contestants:
    """The ways to get the same answers.

    Args:
        llm: Decodes in process.
        client: Of the server.
        tokens: Length of an answer.
    """

    def __init__(self, llm: EFTChatModel, client: httpx.AsyncClient, tokens: int) -> None:
        self._llm, self._client = llm, client
        end = llm.engine.tokenizer.eos_token_id
        self._options = {"temperature": 0, "max_tokens": tokens, "logit_bias": {end: -100.0}}

    def _body(self, text: str, **more: Any) -> dict[str, Any]:
        options = {**self._options, "logit_bias": {str(i): b for i, b in self._options["logit_bias"].items()}}
        return {"model": "smol", "messages": [{"role": "user", "content": text}], **options, **more}

    async def in_process(self, texts: list[str]) -> list[str]:
        """`abatch`."""
        answers = await self._llm.abatch([[HumanMessage(text)] for text in texts], **self._options)
        return [answer.text for answer in answers]

    async def over_http(self, texts: list[str]) -> list[str]:
        """One whole answer for each client."""
        bodies = [self._body(text) for text in texts]
        answers = await asyncio.gather(*(self._client.post("/v1/chat/completions", json=b) for b in bodies))
        return [answer.json()["choices"][0]["message"]["content"] for answer in answers]

    async def streamed(self, texts: list[str]) -> list[str]:
        """One stream for each client, whose bytes are read and not parsed."""
        return list(await asyncio.gather(*map(self._stream, texts)))

    async def _stream(self, text: str) -> str:
        asked = self._body(text, stream=True)
        async with self._client.stream("POST", "/v1/chat/completions", json=asked) as response:
            return "".join([part async for part in response.aiter_text()])

    async def first_piece_in_process(self, text: str) -> float:
        """Seconds to the first event of the engine, the preparation of the call included."""
        began, seconds = time.perf_counter(), 0.0
        call = await asyncio.to_thread(self._llm.prepare_call, [HumanMessage(text)], **self._options)
        async for _ in self._llm.engine.astream(call.only_request):
            seconds = seconds or time.perf_counter() - began
        return seconds

    async def first_piece_over_http(self, text: str) -> float:
        """Seconds to the first bytes of a stream's body, on a connection that is open already."""
        asked = self._body(text, stream=True)
        began = time.perf_counter()
        async with self._client.stream("POST", "/v1/chat/completions", json=asked) as response:
            pieces = response.aiter_bytes()
            await anext(pieces)
            seconds = time.perf_counter() - began
            async for _ in pieces:  # so that the connection can be used again
                pass
        return seconds


async def throughput(contestants: Contestants, clients: int, tokens: int, rounds: int) -> None:
    """Decode the same requests in every way, in turns, and print speeds and ratios."""
    ways: dict[str, Callable[[list[str]], Coroutine[Any, Any, list[str]]]] = {
        "in process, abatch": contestants.in_process,
        "server, whole": contestants.over_http,
        "server, streamed": contestants.streamed,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    texts = [prompt(number) for number in range(clients)]
    for turn in range(rounds + 1):
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in names:
            began = time.perf_counter()
            await ways[name](texts)
            if turn:  # the first turn warms up
                speeds[name].append(clients * tokens / (time.perf_counter() - began))
    print(f"\n{clients} clients, {tokens} tokens each, {rounds} rounds\n")
    print("| way | tokens/s | of in process |")
    print("| --- | --- | --- |")
    for name, values in speeds.items():
        ratios = [value / base for value, base in zip(values, speeds["in process, abatch"], strict=True)]
        share = Spread.of(ratios)
        median = statistics.median(values)
        print(f"| {name} | {median:.0f} | {share.median:.3f} ({share.low:.3f}-{share.high:.3f}) |")


async def first_piece(contestants: Contestants, requests: int) -> None:
    """Ask for streams one after the other, in both ways in turns, and print the times to the first piece."""
    ways = {"in process": contestants.first_piece_in_process, "server": contestants.first_piece_over_http}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(requests + 4):
        for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
            seconds = await way(prompt(0))
            if number >= 4:  # the first ones warm up
                times[name].append(1000 * seconds)
    print(f"\ntime to the first piece of a stream, {requests} requests one after the other\n")
    print("| way | median | 90% |")
    print("| --- | --- | --- |")
    for name, values in times.items():
        median, late = statistics.median(values), statistics.quantiles(values, n=10)[-1]
        print(f"| {name} | {median:.1f} ms | {late:.1f} ms |")
    pairs = zip(times["server"], times["in process"], strict=True)
    added = statistics.median(server - own for server, own in pairs)
    print(f"\nHTTP adds {added:.1f} ms at the median of neighboring requests.")


async def measure(clients: int, tokens: int, rounds: int, requests: int) -> None:
    """Run both comparisons against one server."""
    llm = EFTChatModel(engine_options={"kv_cache_tokens": KV_TOKENS})
    llm.open()
    async with server() as client:
        contestants, short = Contestants(llm, client, tokens), Contestants(llm, client, 4)
        texts = [prompt(number) for number in range(clients)]
        assert await contestants.in_process(texts) == await contestants.over_http(texts)
        await throughput(contestants, clients, tokens, rounds)
        await first_piece(short, requests)


def main(
    clients: Annotated[int, typer.Option(help="Requests at once.")] = 16,
    tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 48,
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 6,
    requests: Annotated[int, typer.Option(help="Streams whose first piece is timed.")] = 40,
) -> None:
    """Measure what HTTP costs: in tokens per second, and in time to the first piece."""
    asyncio.run(measure(clients, tokens, rounds, requests))


if __name__ == "__main__":
    typer.run(main)
