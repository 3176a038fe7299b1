"""`langchain-eft verify`: whether this machine decodes a recipe correctly."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import load_local, progress, readable_errors
from langchain_eft.cli.options import JsonFlag, MaxTokens, RecipeOptions, option_groups
from langchain_eft.cli.parse_recipe import describe_mixture, read_prompts

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.diagnostics.verify.report import Check, VerificationReport


def verification_table(report: VerificationReport) -> Table:
    """The checks of a report as a table; failed checks are red."""
    table = Table()
    for heading in ("compared", "speculation"):
        table.add_column(heading)
    for heading in ("batch", "tokens", "statistic", "p-value", "accepted"):
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    for check in report.checks:
        table.add_row(*_cells(check), style="bold red" if check.outcome == "failed" else None)
    return table


def _cells(check: Check) -> list[str]:
    equal = check.statistic == "equal"
    return [
        check.what,
        str(check.speculation),
        str(check.batch_size),
        str(check.tokens),
        f"{check.value:.2%} equal" if equal else f"{check.statistic} = {check.value:.2f}",
        "" if check.p_value is None else f"{check.p_value:.2g}",
        "" if check.acceptance_rate is None else f"{check.acceptance_rate:.0%}",
        check.outcome,
    ]


def verification_summary(report: VerificationReport, mixture: dict[str, float]) -> str:
    """The outcome of a verification as one line."""
    failed = sum(check.outcome == "failed" for check in report.checks)
    outcome = f"FAILED in {failed} of {len(report.checks)} checks" if failed else "Passed"
    return (
        f"{outcome}: mixture {describe_mixture(mixture)}, {report.tokens} tokens compared in "
        f"{report.seconds:.0f} s; p-values fail below {report.least_p_value:.1e} "
        f"({report.alpha:g} / {report.tests} tests, Bonferroni)."
    )


def show_report(report: VerificationReport, mixture: dict[str, float], *, as_json: bool) -> None:
    """Print a report to stdout, as tables or as JSON."""
    if as_json:
        typer.echo(json.dumps({"passed": report.passed, "mixture": mixture, **asdict(report)}, indent=2))
    else:
        console = Console(highlight=False)
        console.print(verification_table(report))
        console.print(verification_summary(report, mixture), soft_wrap=True)


def verify_model(llm: EFTChatModel, texts: list[str] | None, **thoroughness: int) -> VerificationReport:
    """Verify a chat model's mixture, and show the progress.

    Args:
        llm: The chat model.
        texts: Prompts; None for the built-in ones.
        **thoroughness: `samples`, `max_tokens` and `seed` of the plan.

    Raises:
        EngineError: The weights cannot be loaded, or the mixture cannot be decoded.
    """
    engine = load_local(llm)
    from langchain_eft.diagnostics.verify.plan import PROMPTS, VerificationPlan, encode_prompts
    from langchain_eft.diagnostics.verify.verify import verify as verify_engine

    mixture = llm.active_mixture
    plan = VerificationPlan(
        prompts=encode_prompts(engine.tokenizer, engine.recipe, mixture, texts or PROMPTS),
        mixture=mixture,
        upscale_strength=llm.upscale_strength,
        upscale_top_p=llm.upscale_top_p,
        **thoroughness,
    )
    with progress() as report_progress:
        return verify_engine(engine, plan, report_progress)


@option_groups
def verify(
    recipe: RecipeOptions,
    *,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts, one a line. Left out, six plain questions."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(min=8, help="Sampled answers per check; of first tokens, 50 times as many."),
    ] = 8,
    max_tokens: MaxTokens = 12,
    seed: Annotated[int, typer.Option(min=0, max=2**32, help="The same seed gives the same samples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Check that this machine decodes a recipe correctly, by comparing its answers with full forward passes.

    Greedy answers must be equal and sampled ones must have the same distribution. This takes a few minutes.
    The exit code is 1 if a comparison failed.
    """
    with readable_errors():
        texts = read_prompts(prompts) if prompts else None
        llm = recipe.build_model()
        report = verify_model(llm, texts, samples=samples, max_tokens=max_tokens, seed=seed)
    show_report(report, llm.active_mixture.as_json(), as_json=as_json)
    if not report.passed:
        raise typer.Exit(1)
