"""Measure decisions: many questions about one text, beside one question about one."""

from __future__ import annotations

import statistics
import time
from typing import Annotated, Any

import torch
import typer
from langchain_core.decisions import Choice, Noul

from langchain_eft import EFTDecisionModel
from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.models.causal_model import CausalModel

SENTENCE = "The room was small, but quiet. "
TOPICS = ("price", "taste", "noise", "staff", "speed", "size", "color", "weight")
LABELS = dict.fromkeys(("not at all", "a little", "very much"))


class TokenCount:
    """Counts the tokens of all forward passes of all models."""

    def __init__(self) -> None:
        self.tokens = 0
        run = CausalModel.__call__

        def counted(model: CausalModel, batch: ForwardBatch, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.tokens += batch.ids.numel()
            return run(model, batch, *args, **kwargs)

        CausalModel.__call__ = counted  # type: ignore[method-assign]


def questions(count: int, kind: str) -> dict[str, Choice | Noul]:
    """Different questions: of yes or no, or choices of three labels of several tokens."""
    asked = [f"Is guest {i} concerned about the {TOPICS[i % len(TOPICS)]}?" for i in range(count)]
    if kind == "noul":
        return {text: Noul(instructions=text) for text in asked}
    return {text: Choice(instructions=text, criteria=LABELS) for text in asked}


def main(
    many: Annotated[int, typer.Option(help="Questions about one text.")] = 32,
    rounds: Annotated[int, typer.Option(help="How often each is measured, in turn.")] = 3,
    lengths: Annotated[list[int], typer.Option(help="Sentences of the texts.")] = [50, 100, 200],  # noqa: B006
) -> None:
    """Alternate between one question and many, each about a text that is new, and print the ratios."""
    torch.set_num_threads(1)
    classifier, count = EFTDecisionModel(), TokenCount()
    classifier.open()

    def ask(number: int, kind: str, text: str) -> tuple[int, float]:
        count.tokens, started = 0, time.process_time()
        classifier.invoke({"state": text, "questions": questions(number, kind)})
        return count.tokens, time.process_time() - started

    ask(many, "choice", SENTENCE)  # warms up
    print(
        f"| text, tokens | questions | tokens run, {many} / 1 | CPU time, {many} / 1 | the same text again |"
    )
    print("| --- | --- | --- | --- | --- |")
    for sentences in lengths:
        length = len(classifier.tokenizer(SENTENCE * sentences).input_ids)
        for kind in ("noul", "choice"):
            measured = []
            for i in range(rounds):
                names = [f"{sentences} {kind} {2 * i + j}" for j in range(2)]  # nothing is cached
                first, second = (f"Report {name}. {SENTENCE * sentences}" for name in names)
                measured.append([ask(1, kind, first), ask(many, kind, second), ask(many, kind, second)])
            tokens = measured[-1][1][0] / measured[-1][0][0]
            one, all_new, again = (
                statistics.median(seconds for _, seconds in each) for each in zip(*measured, strict=True)
            )
            print(f"| {length} | {kind} | {tokens:.2f} | {all_new / one:.2f} | {again / one:.2f} |")


if __name__ == "__main__":
    typer.run(main)
