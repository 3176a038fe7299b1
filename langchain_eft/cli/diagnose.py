"""`langchain-eft diagnose`: whether a behavior transfers to a base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import load, progress, readable_errors
from langchain_eft.cli.options import JsonFlag, ModelOptions, option_groups
from langchain_eft.cli.parse_recipe import read_prompts

if TYPE_CHECKING:
    from langchain_eft.diagnostics.verdict import Diagnosis, DraftSpeed, Figures


def diagnosis_table(diagnoses: list[Diagnosis]) -> Table:
    """The figures of several behaviors, one column for each."""
    table = Table(title="Figures behind the verdict", title_justify="left")
    table.add_column("")
    for diagnosis in diagnoses:
        table.add_column(f"{diagnosis.weight:g} · {diagnosis.behavior}", justify="right")
    columns = [list(rows(diagnosis.figures)) for diagnosis in diagnoses]
    for cells in zip(*columns, strict=False):
        table.add_row(cells[0][0], *(value for _, value in cells))
    return table


def rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures of one behavior, each as its name and its value."""
    agreement, distances, delta = figures.agreement, figures.base_distances, figures.delta
    endings, rewards = figures.endings, figures.rewards
    return [
        ("base and reference: same most likely token, along EFT's answers", f"{agreement.same_first:.0%}"),
        ("total variation, KL(L || S)", f"{agreement.total_variation:.2f}, {agreement.divergence:.2f}"),
        (
            "along the base's answers: base-reference, base-tuned, tuned-reference",
            f"{distances.base_reference:.2f}, {distances.base_tuned:.2f}, {distances.tuned_reference:.2f}",
        ),
        ("delta: mean |F - S| on probable tokens, KL(F || S)", f"{delta.size:.2f}, {delta.divergence:.2f}"),
        ("total variation of F and S", f"{delta.total_variation:.3f}"),
        ("entropy of p, of F", f"{delta.entropy:.2f}, {delta.entropy_tuned:.2f}"),
        ("largest probability on ids that not all models have", f"{figures.masked:.1e}"),
        (
            "answers that end: base, EFT, tuned",
            f"{endings.base:.0%}, {endings.eft:.0%}, {endings.tuned:.0%}",
        ),
        ("probability of the end token where the tuned model ended: L, S, F", _ends(figures)),
        (
            "reward per token: base, EFT, tuned",
            f"{rewards.base:.2f}, {rewards.eft:.2f}, {rewards.tuned:.2f}",
        ),
        ("share of the gain that EFT recovers", f"{rewards.recovered:.0%}"),
        ("draft tokens that p accepts", f"{figures.acceptance:.0%}"),
        *((_title(draft), _speed(draft, figures.drafts[0])) for draft in figures.drafts),
    ]


def _ends(figures: Figures) -> str:
    endings = figures.endings
    values = (endings.end_base, endings.end_reference, endings.end_tuned)
    return ", ".join("-" if value is None else f"{value:.2g}" for value in values)


def _title(draft: DraftSpeed) -> str:
    return (
        f"tokens per round with {draft.length} draft tokens"
        if draft.length
        else "tokens per round without drafts"
    )


def _speed(draft: DraftSpeed, plain: DraftSpeed) -> str:
    if not draft.tokens_per_second or not plain.tokens_per_second:
        return f"{draft.tokens_per_round:.2f}"
    faster = draft.tokens_per_second / plain.tokens_per_second
    return f"{draft.tokens_per_round:.2f}: {draft.tokens_per_second:.1f} tokens/s ({faster:.2f}x)"


@option_groups
def diagnose(
    models: ModelOptions,
    *,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts that call for the behavior, one a line."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 48,
    temperature: Annotated[
        float | None,
        typer.Option(help="Temperature for the acceptance rate of draft tokens; 0 is greedy."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find out whether the behaviors of a mixture transfer to the base model, and why or why not.

    Each behavior is tested by itself, on a few prompts. The exit code is 1 if one of them does not transfer.
    """
    with readable_errors():
        texts = read_prompts(prompts) if prompts else None
        llm = models.build_model(temperature=temperature)
        load(llm)
        from langchain_eft.diagnostics.diagnose import PROMPTS
        from langchain_eft.diagnostics.diagnose import diagnose as diagnose_behaviors

        with progress() as report_progress:
            diagnoses = diagnose_behaviors(
                llm, texts or PROMPTS, max_tokens=max_tokens, progress=report_progress
            )
    if as_json:
        typer.echo(json.dumps([diagnosis.to_dict() for diagnosis in diagnoses], indent=2))
    else:
        console = Console(highlight=False)
        console.print(diagnosis_table(diagnoses))
        for diagnosis in diagnoses:
            console.print(diagnosis.sentence, soft_wrap=True)
    if not all(diagnosis.transfers for diagnosis in diagnoses):
        raise typer.Exit(1)
