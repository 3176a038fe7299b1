"""`langchain-eft eval`: what systems know and do, and what judges think of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import InputError, load, note, notes, readable_errors
from langchain_eft.cli.options import (
    BaseTemplate,
    Behavior,
    ChatTemplate,
    Device,
    Dtype,
    Mix,
    Model,
    Reference,
    UpscaleStrength,
    UpscaleTopP,
    build_model,
    format_mixture,
    parse_mixture,
    recipe_settings,
)
from langchain_eft.engine.recipe.frozen import known

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.evaluation import Agreement, Comparison, Evaluation, Judge, System, Task

TASKS = ("capitals", "tool-calls", "harmful", "benign")
"""What is evaluated where no task is named."""

SELF = "self"
"""What `--judge` calls the model that is evaluated."""

TUNED = "tuned:"
"""What `--system` puts before the behaviour of a tuned model alone."""

SETTINGS = ("upscale_strength", "upscale_top_p")
"""What `--sweep` knows beside the behaviours."""


def parse_system(llm: EFTChatModel, text: str) -> System:
    """A system as it is typed.

    Raises:
        InputError: Nothing of the kind.
    """
    from langchain_eft.evaluation import System, base_alone, mixed, reference_alone, tuned_alone

    if text == "base":
        return base_alone(llm)
    if text == "reference":
        return reference_alone(llm)
    if text == "eft":
        return System(f"eft {format_mixture(dict(llm.active_mixture.weights))}", llm)
    if text.startswith(TUNED):
        return tuned_alone(llm, text.removeprefix(TUNED), text)
    if "=" in text:
        return mixed(llm, parse_mixture(text.split(",")), text)
    if ":" in text:
        return System(text, hosted(text, "--system"))
    raise InputError(
        f"--system {text!r} is unknown: write base, reference, eft (the usual mixture), {TUNED}NAME, a "
        "mixture such as tools=1,concise=0.5, or PROVIDER:MODEL."
    )


def hosted(text: str, option: str) -> BaseChatModel:
    """Any chat model that LangChain can build by name.

    Raises:
        InputError: It cannot be built.
    """
    try:
        model: BaseChatModel = import_module("langchain.chat_models").init_chat_model(text)
    except (ImportError, ValueError) as error:
        what = "PROVIDER:MODEL, for example openai:gpt-5, with langchain and the provider's package installed"
        raise InputError(f"{option} {text!r} cannot be used ({error}): write {what}.") from error
    return model


def parse_sweep(llm: EFTChatModel, text: str) -> list[System]:
    """`harmless=0,0.5,1` or `upscale_strength=0,1,2` as systems.

    Raises:
        InputError: Nothing of the kind.
    """
    from langchain_eft.evaluation import strength_sweep, top_p_sweep, weight_sweep

    name, _, listed = text.partition("=")
    values: list[float] = []
    with suppress(ValueError):
        values = [float(value) for value in listed.split(",")]
    names = (*llm.recipe.behaviors, *SETTINGS)
    if not values or name not in names:
        raise InputError(
            f"--sweep {text!r} is no sweep: write NAME=VALUE,VALUE,... with one of {known(names)}."
        )
    if name == "upscale_strength":
        return strength_sweep(llm, values)
    return top_p_sweep(llm, values) if name == "upscale_top_p" else weight_sweep(llm, name, values)


def parse_task(text: str, limit: int | None, seed: int, max_tokens: int | None) -> Task:
    """A task as it is typed: a built-in one, or a JSONL file.

    Raises:
        EvaluationError: Neither.
    """
    from dataclasses import replace

    from langchain_eft.evaluation import BUILT_IN, load_task

    task = BUILT_IN[text]() if text in BUILT_IN else load_task(text)
    task = replace(task, max_tokens=max_tokens or task.max_tokens)
    return task.limited(limit, seed)


def build_judges(
    llm: EFTChatModel, names: Sequence[str], rubrics: Sequence[str]
) -> dict[str, tuple[BaseChatModel, list[Judge]]]:
    """Judges for every rubric, by what was typed.

    Raises:
        InputError: An unknown rubric or judge.
    """
    from langchain_eft.evaluation import RUBRICS, Judge

    unknown = set(rubrics) - set(RUBRICS)
    if unknown:
        raise InputError(f"--rubric {known(unknown)} is unknown: choose from {known(RUBRICS)}.")
    chosen = [RUBRICS[name] for name in rubrics] or list(RUBRICS.values())
    models = {name: llm if name == SELF else hosted(name, "--judge") for name in names}
    return {
        name: (
            model,
            [
                Judge(model, rubric, name=rubric.name if len(models) == 1 else f"{rubric.name} by {name}")
                for rubric in chosen
            ],
        )
        for name, model in models.items()
    }


def agreements(evaluation: Evaluation, judges: Iterable[Sequence[Judge]]) -> dict[str, Agreement]:
    """How far several judges agree, by rubric, over all systems and tasks."""
    from langchain_eft.evaluation import agreement

    found = {}
    for same in zip(*judges, strict=True):
        ratings = [
            [v for cell in evaluation.cells if cell.metric == each.name for v in cell.values] for each in same
        ]
        found[same[0].rubric.name] = agreement(ratings, "interval")
    return found


def prepare(output: Path | None, *, resume: bool) -> None:
    """Check where results go.

    Raises:
        InputError: Results of another run are there, or there is nothing to resume.
    """
    if resume and (output is None or not output.is_dir()):
        raise InputError(f"--resume has nothing to resume: --output {str(output)!r} is no folder of a run.")
    if output is not None and not resume and output.exists() and any(output.iterdir()):
        raise InputError(
            f"--output {str(output)!r} holds results already: add --resume to go on with them, or name "
            "another "
            "folder."
        )


def axes_of(text: str, tasks: Sequence[Task]) -> list[tuple[str, str | None]]:
    """`harmful,benign` or `capitals:length,benign` as two axes.

    Raises:
        InputError: Not two, or of tasks that are not evaluated.
    """
    axes = [part.partition(":") for part in text.split(",")]
    names = [task.name for task in tasks]
    if len(axes) != 2 or any(task not in names for task, _, _ in axes):
        raise InputError(
            f"--frontier {text!r}: write TASK,TASK or TASK:METRIC,TASK:METRIC of {known(names)}."
        )
    return [(task, metric or None) for task, _, metric in axes]


def results_table(evaluation: Evaluation) -> Table:
    """The evaluation for a terminal: a row for each task and metric, a column for each system."""
    systems = list(dict.fromkeys(cell.system for cell in evaluation.cells))
    table = Table(caption=f"{evaluation.confidence:.0%} intervals: Wilson for shares, bootstrap for means")
    table.add_column("task")
    table.add_column("metric")
    for system in systems:
        table.add_column(system, justify="right")
    for task, metric in dict.fromkeys((cell.task, cell.metric) for cell in evaluation.cells):
        cells = [evaluation.cell(system, task, metric) for system in systems]
        table.add_row(task, metric, *(cell.shown() for cell in cells))
    return table


def evaluate(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK]...",
            help="capitals, tool-calls, harmful, benign, instructions, preferences, or a JSONL file with "
            f"one prompt a line. Left out: {' '.join(TASKS)}.",
        ),
    ] = None,
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What is evaluated: base, reference, eft (the usual mixture), {TUNED}NAME, a mixture such "
            "as tools=1,concise=0.5, or PROVIDER:MODEL. Repeat it. Left out: base and eft."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Systems along a behaviour's weight, upscale_strength or upscale_top_p: harmless=0,0.5,1.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Cases of each task.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each case.")] = 1,
    temperature: Annotated[float, typer.Option(help="Randomness; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same cases and answers.")] = 0,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help=f"Grades the answers: PROVIDER:MODEL, or '{SELF}'. Repeat it."),
    ] = None,
    rubric: Annotated[
        list[str] | None,
        typer.Option(help="helpfulness, factuality or harmlessness; left out, all three."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="SYSTEM", help="Let the judge also compare every system with this one."),
    ] = None,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Answers asked for at once.")] = 16,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep answers, grades, tables and figures there.")
    ] = None,
    frontier: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Draw two tasks against each other into --output: harmful,benign."),
    ] = None,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    device: Device = None,
    dtype: Dtype = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --output holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Evaluate systems on tasks: facts, tool calls, refusals, your own prompts; with judges, if you like."""
    from langchain_eft.evaluation import PairwiseJudge, Runner, plot_frontier
    from langchain_eft.evaluation import frontier as frontier_of

    with readable_errors():
        prepare(output, resume=resume)
        if against and not judge:
            raise InputError(f"--against {against!r} needs a judge to compare with: add --judge.")
        if frontier and not output:
            raise InputError(f"--frontier {frontier!r} is drawn into --output: name a folder.")
        settings = recipe_settings(
            model, mix, behavior, reference, chat_template=chat_template, base_template=base_template,
            upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            device=device, dtype=dtype,
        )  # fmt: skip
        llm = build_model(temperature=temperature, **settings)
        chosen = [parse_task(text, limit, seed, max_tokens) for text in tasks or TASKS]
        axes = axes_of(frontier, chosen) if frontier else []
        swept = [each for text in sweep or () for each in parse_sweep(llm, text)]
        typed = system or ([] if swept else ["base", "eft"])
        systems = list(
            {each.name: each for each in [*(parse_system(llm, t) for t in typed), *swept]}.values()
        )
        baseline = _named(systems, against, llm) if against else None
        judges = build_judges(llm, judge or (), rubric or ())
        scorers = [each for _, rubrics in judges.values() for each in rubrics]
        judged = [task.with_scorers(*scorers) if task.generates else task for task in chosen]
        if any(_emulated(each) for each in systems):
            load(llm)
        runner = Runner(
            output, max_concurrency=max_concurrency, samples=samples, seed=seed,
            console=notes if notes.is_terminal else None,
        )  # fmt: skip
        evaluation = runner.evaluate(systems, judged)
        comparisons = [
            runner.compare(each, baseline, task, PairwiseJudge(grader, one.rubric))
            for grader, rubrics in judges.values()
            for one in rubrics
            for task in chosen
            for each in systems
            if baseline is not None and task.generates and each.name != baseline.name
        ]
        several = len(judges) > 1
        agreed = agreements(evaluation, [rubrics for _, rubrics in judges.values()]) if several else {}
        if output is not None:
            _keep(output, evaluation, comparisons)
            if axes:
                plot_frontier(frontier_of(evaluation, axes[0], axes[1]), output / "frontier.svg")
    if as_json:
        typer.echo(evaluation.to_json())
    else:
        _show(evaluation, comparisons, agreed)


def _emulated(system: System) -> bool:
    from langchain_eft.evaluation.systems import is_emulated

    return is_emulated(system.runnable)


def _named(systems: Sequence[System], text: str, llm: EFTChatModel) -> System:
    return next((each for each in systems if each.name == text), None) or parse_system(llm, text)


def _keep(output: Path, evaluation: Evaluation, comparisons: Sequence[Comparison]) -> None:
    lines = [evaluation.to_markdown(), *(f"\n{comparison}" for comparison in comparisons)]
    (output / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (output / "results.json").write_text(evaluation.to_json(), encoding="utf-8")


def _show(evaluation: Evaluation, comparisons: Sequence[Comparison], agreed: dict[str, Agreement]) -> None:
    out = Console(highlight=False)
    out.print(results_table(evaluation))
    for comparison in comparisons:
        out.print(str(comparison), soft_wrap=True)
    for rubric, found in agreed.items():
        alpha = "undefined" if found.alpha is None else f"{found.alpha:.2f}"
        out.print(f"Judges on {rubric}: {found.raw.value:.0%} equal, Krippendorff's alpha {alpha}.")
    unscored = sum(cell.unscored for cell in evaluation.cells)
    if unscored:
        note(f"{unscored} answers have no score: the judge could not be understood.", "yellow")
    used = sum(cell.grade_usage["total_tokens"] for cell in evaluation.cells)
    used += sum(comparison.usage["total_tokens"] for comparison in comparisons)
    if used:
        note(f"The judges took {used} tokens.")
