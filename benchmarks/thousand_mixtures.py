"""`python -m benchmarks.thousand_mixtures`: what it costs that every request of a batch has its own mixture.

Three queues take turns: all requests with one mixture of all behaviors, each request with weights of its own
for all behaviors, and each request with weights of its own for some of the behaviors. Ratios are computed
within a turn, of seconds by the clock and of CPU seconds, which other work on the machine disturbs less. Over
all turns, no mixture occurs twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.chat.messages import encode
from langchain_eft.diagnostics.bench import Spread, take_turns
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams
from langchain_eft.evaluation.results import markdown

PROMPT = "Tell me about whales."
NO_END = -100.0
ONE, WEIGHTS, SETS = "one mixture", "a mixture for each request", "a set of behaviors for each request"


@dataclass(frozen=True)
class Took:
    """Seconds of a queue, by the clock and of the CPU."""

    clock: float
    cpu: float


def queues(names: Sequence[str], count: int, rng: random.Random) -> dict[str, list[Mixture]]:
    """The mixtures of a turn's requests, for each queue."""

    def weights(chosen: Sequence[str]) -> Mixture:
        return Mixture.of({name: rng.uniform(0.1, 0.6) for name in chosen})

    some = [rng.sample(names, rng.randint(1, len(names))) for _ in range(count)]
    return {
        ONE: [Mixture.of(dict.fromkeys(names, 0.3))] * count,
        WEIGHTS: [weights(names) for _ in range(count)],
        SETS: [weights(chosen) for chosen in some],
    }


def run(engine: Engine, mixtures: Sequence[Mixture], prompt: Sequence[int], tokens: int) -> Took:
    """Decode a request for each mixture, all queued at once; returns the seconds until the last ends."""
    sampling = SamplingParams(temperature=0, logit_bias={engine.tokenizer.eos_token_id: NO_END})
    requests = [
        GenerationRequest(
            prompt_ids=prompt, mixture=mixture, sampling=sampling, max_tokens=tokens, speculation="off"
        )
        for mixture in mixtures
    ]
    clock, cpu = time.perf_counter(), time.process_time()
    for events in engine.generate(requests):
        for _ in events:
            pass
    return Took(time.perf_counter() - clock, time.process_time() - cpu)


def main(
    mixtures: Annotated[int, typer.Option(help="Different mixtures, over all turns.")] = 1000,
    turns: Annotated[int, typer.Option(help="The number of measured turns.")] = 10,
    tokens: Annotated[int, typer.Option(help="Length of the answers.")] = 8,
    batch: Annotated[int, typer.Option(help="Requests that decode together.")] = 16,
) -> None:
    """Measure the queues in turns, and print a table of medians."""
    llm = EFTChatModel(temperature=0, engine_options={"kv_cache_tokens": 16384, "max_batch_size": batch})
    engine, names, rng = llm.engine, list(llm.recipe.behaviors), random.Random(0)
    prompt = encode(engine.tokenizer, [HumanMessage(PROMPT)])
    count = mixtures // turns
    run(engine, queues(names, batch, rng)[SETS], prompt, tokens)  # warms up
    drawn = [queues(names, count, rng) for _ in range(turns)]

    def contestant(name: str) -> Callable[[int], Took]:
        return lambda turn: run(engine, drawn[turn][name], prompt, tokens)

    measured = take_turns({name: contestant(name) for name in (ONE, WEIGHTS, SETS)}, turns, warm_up=0)
    print(
        f"{turns} turns of {count} requests, {batch} at once, {len(names)} behaviors, {tokens} tokens each.\n"
    )
    rows = []
    for name, runs in measured.items():
        rate = Spread.of([count * tokens / took.clock for took in runs])
        clock = Spread.of_ratios([took.clock for took in runs], [one.clock for one in measured[ONE]])
        cpu = Spread.of_ratios([took.cpu for took in runs], [one.cpu for one in measured[ONE]])
        rows.append([name, f"{rate:.1f}", f"{clock:.2f}", f"{cpu:.2f}"])
    print(markdown(["queue", "tokens/s", "times one mixture, by the clock", "in CPU time"], rows))


if __name__ == "__main__":
    typer.run(main)
