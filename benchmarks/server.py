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
import operator
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import Spread, take_turns
from langchain_eft.evaluation.results import markdown

TOPICS = ("whales", "ships", "rain", "bread", "maps", "clocks", "bees", "chess", "rivers", "glass", "stars",
          "trains", "salt", "paper", "wind", "music")  # fmt: skip
KV_TOKENS, PATIENCE = 16384, 300

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine to its end, in the one event loop of all."""


def prompt(number: int) -> str:
    """The prompt of one client."""
    return f"Tell me about {TOPICS[number % len(TOPICS)]}."


@contextmanager
def server() -> Iterator[httpx.AsyncClient]:
    """A client of a new server process, once its weights are loaded."""
    options = ["--port", "0", "--kv-cache-tokens", str(KV_TOKENS)]
    command = [sys.executable, "-m", "langchain_eft", "serve", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
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
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop the server
        yield httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None))
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


def throughput(run: Run, contestants: Contestants, clients: int, tokens: int, rounds: int) -> None:
    """Decode the same requests in every way, in turns, and print speeds and ratios."""
    texts = [prompt(number) for number in range(clients)]

    def contestant(way: Callable[[list[str]], Coroutine[Any, Any, list[str]]]) -> Callable[[int], float]:
        def speed(_: int) -> float:
            began = time.perf_counter()
            run(way(texts))
            return clients * tokens / (time.perf_counter() - began)

        return speed

    ways = {
        "in process, abatch": contestants.in_process,
        "server, whole": contestants.over_http,
        "server, streamed": contestants.streamed,
    }
    speeds = take_turns({name: contestant(way) for name, way in ways.items()}, rounds)
    print(f"\n{clients} clients, {tokens} tokens each, {rounds} rounds\n")
    rows = [
        [name, f"{Spread.of(each).median:.0f}", f"{Spread.of_ratios(each, speeds['in process, abatch']):.3f}"]
        for name, each in speeds.items()
    ]
    print(markdown(["way", "tokens/s", "of in process"], rows))


def first_piece(run: Run, contestants: Contestants, requests: int) -> None:
    """Ask for streams one after the other, in both ways in turns, and print the times to the first piece."""
    ways = {"in process": contestants.first_piece_in_process, "server": contestants.first_piece_over_http}

    def contestant(way: Callable[[str], Coroutine[Any, Any, float]]) -> Callable[[int], float]:
        return lambda _: 1000 * run(way(prompt(0)))

    times = take_turns({name: contestant(way) for name, way in ways.items()}, requests, warm_up=4)
    print(f"\ntime to the first piece of a stream, {requests} requests one after the other\n")
    rows = [
        [name, f"{statistics.median(each):.1f} ms", f"{statistics.quantiles(each, n=10)[-1]:.1f} ms"]
        for name, each in times.items()
    ]
    print(markdown(["way", "median", "90%"], rows))
    added = statistics.median(map(operator.sub, times["server"], times["in process"]))
    print(f"\nHTTP adds {added:.1f} ms at the median of neighboring requests.")


def main(
    clients: Annotated[int, typer.Option(help="Requests at once.")] = 16,
    tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 48,
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 6,
    requests: Annotated[int, typer.Option(help="Streams whose first piece is timed.")] = 40,
) -> None:
    """Measure what HTTP costs: in tokens per second, and in time to the first piece."""
    llm = EFTChatModel(engine_options={"kv_cache_tokens": KV_TOKENS})
    llm.open()
    with server() as client, asyncio.Runner() as runner:
        contestants = Contestants(llm, client, tokens)
        texts = [prompt(number) for number in range(clients)]
        assert runner.run(contestants.in_process(texts)) == runner.run(contestants.over_http(texts))
        throughput(runner.run, contestants, clients, tokens, rounds)
        first_piece(runner.run, Contestants(llm, client, 4), requests)
        runner.run(client.aclose())


if __name__ == "__main__":
    typer.run(main)
