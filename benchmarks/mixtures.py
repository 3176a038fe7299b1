"""`python -m benchmarks.mixtures`: the cost of every further behavior, in time per token and in memory.

The adapters of one reference run as rows of one pass. So four of them should cost little more than one.
Mixtures of one to four behaviors take turns, with one request at a time. Ratios are computed within a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Annotated

import typer
from langchain_core.messages import HumanMessage

from langchain_eft import EFTChatModel
from langchain_eft.chat.messages import encode
from langchain_eft.diagnostics.bench import Spread, take_turns
from langchain_eft.diagnostics.decoded_answer import decode_in_batches
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.registry import open_engine
from langchain_eft.engine.request import GenerationRequest, SamplingParams, Speculation
from langchain_eft.evaluation.results import markdown

PROMPT = "Tell me about whales."
NO_END = -100.0
SPECULATIONS: tuple[Speculation, ...] = ("off", 4)


def seconds_per_token(engine: Engine, request: GenerationRequest) -> float:
    """Decode an answer and return the seconds per token after the first."""
    (answer,) = decode_in_batches(engine, [request], 1)
    end = answer.end
    return (end.seconds - end.time_to_first_token) / (end.completion_tokens - 1)


def memory(llm: EFTChatModel, names: list[str]) -> list[int]:
    """Return the bytes of weights with the first behavior, with the first two, and so on."""
    sizes = []
    for count in range(1, len(names) + 1):
        behaviors = {name: llm.recipe.behaviors[name] for name in names[:count]}
        engine = open_engine(Recipe(**{**dict(llm.recipe), "behaviors": behaviors}), llm.engine_config)
        sizes.append(engine.stats().weight_bytes)
        engine.close()
    return sizes


def main(
    tokens: Annotated[int, typer.Option(help="Length of the answers.")] = 64,
    repeats: Annotated[int, typer.Option(help="The number of measured turns.")] = 7,
) -> None:
    """Measure mixtures in turns, and print a table of medians."""
    llm = EFTChatModel(temperature=0, engine_options={"kv_cache_tokens": 4096})
    names = list(llm.recipe.behaviors)
    sizes = memory(llm, names)
    engine = llm.engine
    prompt = encode(engine.tokenizer, [HumanMessage(PROMPT)])
    sampling = SamplingParams(temperature=0, logit_bias={engine.tokenizer.eos_token_id: NO_END})

    def contestant(count: int, speculation: Speculation) -> Callable[[int], float]:
        mixture = Mixture.of(dict.fromkeys(names[:count], 1 / count))
        request = GenerationRequest(
            prompt_ids=prompt, mixture=mixture, sampling=sampling, max_tokens=tokens, speculation=speculation
        )
        return lambda _: seconds_per_token(engine, request)

    ways = {way: contestant(*way) for way in product(range(1, len(names) + 1), SPECULATIONS)}
    measured = take_turns(ways, repeats)
    rows = [
        [
            str(count),
            str(speculation),
            f"{1e3 * Spread.of(times).median:.1f}",
            f"{Spread.of_ratios(times, measured[1, speculation]):.2f}",
            f"{sizes[count - 1] / 2**20:.1f}",
        ]
        for (count, speculation), times in measured.items()
    ]
    header = ["behaviors", "speculation", "ms per token", "times one behavior", "weights, MiB"]
    print(markdown(header, rows))


if __name__ == "__main__":
    typer.run(main)
