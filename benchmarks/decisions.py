"""Measure decisions: many questions about one text, beside one question about one."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from langchain_core.decisions import Choice, Noul

from langchain_eft import EFTDecisionModel
from langchain_eft.diagnostics.bench import take_turns
from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.evaluation.results import markdown

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

    def contestants(sentences: int, kind: str) -> dict[str, Callable[[int], list[tuple[int, float]]]]:
        def about(who: str, turn: int) -> str:  # a text that is new, so nothing is cached
            return f"Report {sentences} {kind} {who} {turn}. {SENTENCE * sentences}"

        def ask_many(turn: int) -> list[tuple[int, float]]:
            return [ask(many, kind, about("many", turn)) for _ in range(2)]

        return {"one": lambda turn: [ask(1, kind, about("one", turn))], "many": ask_many}

    rows = []
    for sentences in lengths:
        length = len(classifier.tokenizer(SENTENCE * sentences).input_ids)
        for kind in ("noul", "choice"):
            measured = take_turns(contestants(sentences, kind), rounds)
            one, all_new, again = (
                [seconds for _, seconds in each]
                for each in zip(*map(operator.add, measured["one"], measured["many"]), strict=True)
            )
            tokens = measured["many"][-1][0][0] / measured["one"][-1][0][0]
            times = [statistics.median(each) / statistics.median(one) for each in (all_new, again)]
            rows.append([str(length), kind, *(f"{number:.2f}" for number in (tokens, *times))])
    header = ["text, tokens", "questions", f"tokens run, {many} / 1", f"CPU time, {many} / 1"]
    print(markdown([*header, "the same text again"], rows))


if __name__ == "__main__":
    typer.run(main)
