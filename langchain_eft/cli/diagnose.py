"""`langchain-eft diagnose`: will a behaviour transfer to a base?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import load, note, notes, readable_errors
from langchain_eft.cli.options import (
    BaseTemplate,
    Behavior,
    ChatTemplate,
    Device,
    Dtype,
    Mix,
    Model,
    Reference,
    build_model,
    read_prompts,
    recipe_settings,
)

if TYPE_CHECKING:
    from langchain_eft.diagnostics.verdict import Diagnosis, Drafts, Figures


def diagnosis_table(diagnoses: list[Diagnosis]) -> Table:
    """One column for each behaviour."""
    table = Table(title="What the verdict rests on", title_justify="left")
    table.add_column("")
    for diagnosis in diagnoses:
        table.add_column(f"{diagnosis.weight:g} · {diagnosis.behavior}", justify="right")
    columns = [list(rows(diagnosis.figures)) for diagnosis in diagnoses]
    for cells in zip(*columns, strict=False):
        table.add_row(cells[0][0], *(value for _, value in cells))
    return table


def rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures as names and values."""
    agreement, kin, delta = figures.agreement, figures.kinship, figures.delta
    endings, rewards = figures.endings, figures.rewards
    return [
        ("base and reference: same first choice, along EFT's answers", f"{agreement.same_first:.0%}"),
        ("total variation, KL(L || S)", f"{agreement.total_variation:.2f}, {agreement.divergence:.2f}"),
        (
            "along the base's: base-reference, base-tuned, tuned-reference",
            f"{kin.base_reference:.2f}, {kin.base_tuned:.2f}, {kin.tuned_reference:.2f}",
        ),
        ("delta: mean |F - S| on probable tokens, KL(F || S)", f"{delta.size:.2f}, {delta.divergence:.2f}"),
        ("total variation of F and S", f"{delta.total_variation:.3f}"),
        ("entropy of p, of F", f"{delta.entropy:.2f}, {delta.entropy_tuned:.2f}"),
        ("probability on ids not in common, at most", f"{figures.masked:.1e}"),
        (
            "answers that end: base, EFT, tuned",
            f"{endings.base:.0%}, {endings.eft:.0%}, {endings.tuned:.0%}",
        ),
        ("end token where the tuned ended: L, S, F", _ends(figures)),
        (
            "reward a token: base, EFT, tuned",
            f"{rewards.base:.2f}, {rewards.eft:.2f}, {rewards.tuned:.2f}",
        ),
        ("share of the gain that EFT recovers", f"{rewards.recovered:.0%}"),
        ("drafts that p would accept", f"{figures.acceptance:.0%}"),
        *((_title(draft), _speed(draft, figures.drafts[0])) for draft in figures.drafts),
    ]


def _ends(figures: Figures) -> str:
    endings = figures.endings
    values = (endings.end_base, endings.end_reference, endings.end_tuned)
    return ", ".join("-" if value is None else f"{value:.2g}" for value in values)


def _title(draft: Drafts) -> str:
    return (
        f"tokens a round with drafts of {draft.length}" if draft.length else "tokens a round without drafts"
    )


def _speed(draft: Drafts, plain: Drafts) -> str:
    if not draft.tokens_per_second or not plain.tokens_per_second:
        return f"{draft.tokens_per_round:.2f}"
    faster = draft.tokens_per_second / plain.tokens_per_second
    return f"{draft.tokens_per_round:.2f}: {draft.tokens_per_second:.1f} tokens/s ({faster:.2f}x)"


def diagnose(
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts that call for the behaviour, one a line."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 48,
    temperature: Annotated[
        float | None, typer.Option(help="At which drafts would be accepted; 0 is greedy.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find out whether the behaviours of a mixture will transfer to the base, and why (not).

    Each is looked at by itself, on a few prompts. Leaves with exit code 1 if one of them does not transfer.
    """
    with readable_errors():
        texts = read_prompts(prompts) if prompts else None
        settings = recipe_settings(
            model,
            mix,
            behavior,
            reference,
            chat_template=chat_template,
            base_template=base_template,
            temperature=temperature,
            device=device,
            dtype=dtype,
        )
        llm = build_model(**settings)
        load(llm)
        from langchain_eft.diagnostics import diagnose as diagnosis

        with notes.status("Starting") as status:
            found = diagnosis.diagnose(
                llm,
                texts or diagnosis.PROMPTS,
                max_tokens=max_tokens,
                progress=status.update if notes.is_terminal else note,
            )
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=2))
    else:
        out = Console(highlight=False)
        out.print(diagnosis_table(found))
        for each in found:
            out.print(each.sentence, soft_wrap=True)
    if not all(each.transfers for each in found):
        raise typer.Exit(1)
