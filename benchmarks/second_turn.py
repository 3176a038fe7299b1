"""Measure the prefix cache: time to the first token of a second turn, with and without reuse."""

from __future__ import annotations

import statistics
from typing import Annotated

import typer

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import Spread
from langchain_eft.diagnostics.decoded_answer import decode_in_batches
from langchain_eft.engine.events import Finished
from langchain_eft.engine.request import GenerationRequest, SamplingParams

FIRST, NEW = 600, 24


def first_token(llm: EFTChatModel, prompt: tuple[int, ...]) -> Finished:
    """Compute a prompt and draw one token."""
    request = GenerationRequest(
        prompt_ids=prompt, mixture=llm.active_mixture, sampling=SamplingParams(temperature=0), max_tokens=1
    )
    (answer,) = decode_in_batches(llm.engine, [request], 1)
    return answer.end


def main(
    rounds: Annotated[int, typer.Option(help="The number of conversations, each with two turns.")] = 5,
) -> None:
    """Alternate between new conversations and their second turns, and print the ratio."""
    llm = EFTChatModel()
    words = llm.engine.tokenizer("Whales sing over the width of an ocean. ").input_ids
    text = tuple(words * (FIRST // len(words) + 1))
    fresh, again = [], []
    for i in range(rounds + 1):  # the first round warms up
        opening = (1000 + i, *text[: FIRST - 1])
        fresh.append(first_token(llm, (2000 + i, *text[: FIRST - 1], *text[:NEW])))
        first_token(llm, opening)
        again.append(first_token(llm, (*opening, *text[:NEW])))
    ratios = [
        a.time_to_first_token / b.time_to_first_token for a, b in zip(fresh[1:], again[1:], strict=True)
    ]
    reused = again[-1].cached_tokens
    print(f"second turn of {FIRST} + {NEW} tokens: {reused} reused, {FIRST + NEW - reused} computed")
    for name, ends in (("read anew", fresh[1:]), ("with the prefix cache", again[1:])):
        seconds = statistics.median(end.time_to_first_token for end in ends)
        print(f"{name}: {seconds * 1000:.0f} ms to the first token")
    spread = Spread.of(ratios)
    print(f"times faster: {spread.median:.1f} ({spread.low:.1f}-{spread.high:.1f})")


if __name__ == "__main__":
    typer.run(main)
