"""Measure decisions: many questions about one text, beside one question about one."""

from __future__ import annotations

import statistics
import time
from typing import Annotated, Any

import torch
import typer
from langchain_core.decisions import Choice

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


def questions(count: int) -> dict[str, Choice]:
    """Different choices of three labels of several tokens."""
    return {
        str(i): Choice(
            instructions=f"Is guest {i} concerned about the {TOPICS[i % len(TOPICS)]}?", criteria=LABELS
        )
        for i in range(count)
    }


def main(
    many: Annotated[int, typer.Option(help="Questions about one text.")] = 32,
    sentences: Annotated[int, typer.Option(help="Length of the text.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each is measured, in turn.")] = 5,
) -> None:
    """Alternate between one question and many, each about a text that is new, and print the ratios."""
    torch.set_num_threads(1)
    classifier, count = EFTDecisionModel(), TokenCount()
    classifier.open()

    def ask(number: int, text: str) -> tuple[int, float]:
        count.tokens, started = 0, time.process_time()
        classifier.invoke({"state": text, "questions": questions(number)})
        return count.tokens, time.process_time() - started

    measured: dict[str, list[tuple[int, float]]] = {"one": [], "many": [], "many again": []}
    for i in range(rounds + 1):  # the first round warms up
        measured["one"].append(ask(1, f"Report {2 * i}. {SENTENCE * sentences}"))
        text = f"Report {2 * i + 1}. {SENTENCE * sentences}"
        measured["many"].append(ask(many, text))
        measured["many again"].append(ask(many, text))
    tokens = {name: values[-1][0] for name, values in measured.items()}
    seconds = {name: statistics.median(s for _, s in values[1:]) for name, values in measured.items()}
    print("| questions | tokens run, all models | CPU seconds | times one question |")
    print("| --- | --- | --- | --- |")
    for name, label in (("one", "1"), ("many", f"{many}"), ("many again", f"{many}, the text once more")):
        ratio = seconds[name] / seconds["one"]
        print(f"| {label} | {tokens[name]} | {seconds[name]:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    typer.run(main)
