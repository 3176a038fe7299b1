"""Measure the prefix cache: time to the first token of a second turn, with and without reuse."""

from __future__ import annotations

import statistics
from typing import Annotated

import typer

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import Spread, take_turns
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

    def read_anew(turn: int) -> Finished:
        return first_token(llm, (2000 + turn, *text[: FIRST - 1], *text[:NEW]))

    def second_turn(turn: int) -> Finished:
        opening = (1000 + turn, *text[: FIRST - 1])
        first_token(llm, opening)
        return first_token(llm, (*opening, *text[:NEW]))

    ends = take_turns({"read anew": read_anew, "with the prefix cache": second_turn}, rounds)
    seconds = {name: [end.time_to_first_token for end in each] for name, each in ends.items()}
    reused = ends["with the prefix cache"][-1].cached_tokens
    print(f"second turn of {FIRST} + {NEW} tokens: {reused} reused, {FIRST + NEW - reused} computed")
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times) * 1000:.0f} ms to the first token")
    print(f"times faster: {Spread.of_ratios(*seconds.values()):.1f}")


if __name__ == "__main__":
    typer.run(main)
