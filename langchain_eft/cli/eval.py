"""`langchain-eft eval`: what systems know and do, in figures with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import InputError, load, note, notes, readable_errors
from langchain_eft.cli.options import (
    EndpointOptions,
    JsonFlag,
    RecipeOptions,
    Temperature,
    flag,
    option_groups,
)
from langchain_eft.cli.parse_evaluation import (
    NUDGED,
    SELF,
    TUNED,
    AxisName,
    parse_axes,
    parse_judges,
    parse_rubrics,
    parse_sweep,
    parse_system,
    parse_task,
)

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.evaluation import (
        Evaluation,
        Judge,
        JudgeAgreement,
        PairwiseJudge,
        Runner,
        System,
        SystemComparison,
        Task,
    )

TASKS = ("capitals", "tool-calls", "harmful", "benign")
"""The tasks that are evaluated if none is named."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate, by which judges, and where to keep the results, as typed."""

    system: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A system to evaluate: base, reference, eft (the usual mixture), {TUNED}NAME, "
            f"{NUDGED}NAME (its tuned model where the base is unsure), a mixture such as "
            "tools=1,concise=0.5 or tools=1/below0.4, or PROVIDER:MODEL. Repeat the option to add several. "
            "Left out, base and eft are evaluated."
        ),
    ] = None
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Evaluate one system for each value of a behavior's weight, of upscale_strength or of "
            "upscale_top_p: harmless=0,0.5,1.",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Cases of each task.")] = None
    samples: Annotated[int, typer.Option(min=1, help="Answers to each case.")] = 1
    temperature: Temperature = 0.0
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens.", show_default="the task's own")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cases and answers.")] = 0
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help=f"A model that grades the answers: PROVIDER:MODEL, or '{SELF}'. Repeat the option to add "
            "several.",
        ),
    ] = None
    rubric: Annotated[
        list[str] | None,
        typer.Option(help="helpfulness, factuality or harmlessness. Left out, the judges use all three."),
    ] = None
    against: Annotated[
        str | None,
        typer.Option(metavar="SYSTEM", help="Let the judges also compare every system with this one."),
    ] = None
    max_concurrency: Annotated[int, typer.Option(min=1, help="Answers to request at the same time.")] = 16
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep answers, grades, tables and figures in this folder."),
    ] = None
    frontier: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Draw two tasks against each other into --output: harmful,benign."),
    ] = None
    resume: Annotated[bool, flag("--resume", help="Go on with the results in the folder --output.")] = False

    def check(self) -> None:
        """Check the options that depend on each other.

        Raises:
            InputError: An option needs another one, or the output folder does not fit `resume`.
        """
        folder = self.output
        if self.resume and (folder is None or not folder.is_dir()):
            raise InputError(
                f"--resume has nothing to resume: --output {str(folder)!r} is not the folder of a run."
            )
        if folder is not None and not self.resume and folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"--output {str(folder)!r} holds results already: add --resume to go on with them, or name "
                "another folder."
            )
        if self.against and not self.judge:
            raise InputError(f"--against {self.against!r} needs a judge to compare with: add --judge.")
        if self.frontier and not folder:
            raise InputError(f"--frontier {self.frontier!r} is drawn into --output: name a folder.")


@option_groups
def evaluate(
    recipe: RecipeOptions,
    endpoint: EndpointOptions,
    options: EvaluationOptions,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK",
            help="capitals, tool-calls, harmful, benign, disguised, look-alikes, instructions, preferences, "
            f"or a JSONL file with one prompt a line. Left out: {' '.join(TASKS)}.",
        ),
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate systems on facts, tool calls, refusals or your own prompts, with or without judges."""
    with readable_errors():
        options.check()
        llm = recipe.build_model(temperature=options.temperature, **vars(endpoint))
        experiment = parse_experiment(llm, tasks or TASKS, options)
        if experiment.needs_weights:
            load(llm)
        evaluation, comparisons = run(experiment, options)
        agreements = judge_agreements(evaluation, experiment.judges)
        if options.output is not None:
            keep(options.output, evaluation, comparisons, experiment.axes)
    if as_json:
        typer.echo(evaluation.to_json())
    else:
        show(evaluation, comparisons, agreements)


@dataclass(frozen=True)
class Experiment:
    """What the options ask for, parsed before any weights are loaded.

    Attributes:
        tasks: The tasks, without judges.
        systems: The systems.
        judges: The judges that grade answers: one list for each model, the rubrics in one order.
        pairwise_judges: The judges that compare systems with `baseline`.
        baseline: The system that all others are compared with, or None.
        axes: The two axes of a figure, or None.
    """

    tasks: Sequence[Task]
    systems: Sequence[System]
    judges: Sequence[Sequence[Judge]]
    pairwise_judges: Sequence[PairwiseJudge]
    baseline: System | None
    axes: tuple[AxisName, AxisName] | None

    @property
    def judged_tasks(self) -> list[Task]:
        """The tasks with the judges as scorers, where a task has answers to grade."""
        scorers = [judge for judges in self.judges for judge in judges]
        return [task.with_scorers(*scorers) if task.generates else task for task in self.tasks]

    @property
    def needs_weights(self) -> bool:
        """Whether one of the systems is decoded by this package."""
        from langchain_eft.evaluation.systems import is_emulated

        return any(is_emulated(system.runnable) for system in self.systems)


def parse_experiment(llm: EFTChatModel, names: Sequence[str], options: EvaluationOptions) -> Experiment:
    """Parse the tasks, systems, judges and axes of an evaluation.

    Raises:
        InputError: An option cannot be parsed.
        EvaluationError: A task is unknown.
    """
    from langchain_eft.evaluation import Judge, PairwiseJudge

    tasks = [parse_task(name, options.limit, options.seed, options.max_tokens) for name in names]
    axes = parse_axes(options.frontier, tasks) if options.frontier else None
    rubrics = parse_rubrics(options.rubric or ())
    systems = parse_systems(llm, options)
    baseline = systems.get(options.against) or parse_system(llm, options.against) if options.against else None
    models = parse_judges(llm, options.judge or ())
    judges = [
        [
            Judge(model, rubric, name=rubric.name if len(models) == 1 else f"{rubric.name} by {name}")
            for rubric in rubrics
        ]
        for name, model in models.items()
    ]
    pairwise = [PairwiseJudge(model, rubric) for model in models.values() for rubric in rubrics]
    return Experiment(tasks, list(systems.values()), judges, pairwise, baseline, axes)


def parse_systems(llm: EFTChatModel, options: EvaluationOptions) -> dict[str, System]:
    """The systems of `--system` and `--sweep` by name; base and eft if neither is given."""
    swept = [system for text in options.sweep or () for system in parse_sweep(llm, text)]
    names = options.system or ([] if swept else ["base", "eft"])
    return {system.name: system for system in (*(parse_system(llm, name) for name in names), *swept)}


def run(experiment: Experiment, options: EvaluationOptions) -> tuple[Evaluation, list[SystemComparison]]:
    """Evaluate the systems on the tasks, and compare them with the baseline if there is one."""
    from langchain_eft.evaluation import Runner

    runner = Runner(
        options.output,
        max_concurrency=options.max_concurrency,
        samples=options.samples,
        seed=options.seed,
        console=notes if notes.is_terminal else None,
    )
    return runner.evaluate(experiment.systems, experiment.judged_tasks), compare(runner, experiment)


def compare(runner: Runner, experiment: Experiment) -> list[SystemComparison]:
    """Let every judge compare every system with the baseline, on every task that has answers."""
    baseline = experiment.baseline
    if baseline is None:
        return []
    return [
        runner.compare(system, baseline, task, judge)
        for judge in experiment.pairwise_judges
        for task in experiment.tasks
        for system in experiment.systems
        if task.generates and system.name != baseline.name
    ]


def judge_agreements(evaluation: Evaluation, judges: Sequence[Sequence[Judge]]) -> dict[str, JudgeAgreement]:
    """How far several judges agree on each rubric, over all systems and tasks; empty for a single judge."""
    from langchain_eft.evaluation import agreement

    if len(judges) < 2:
        return {}
    agreements = {}
    for same_rubric in zip(*judges, strict=True):
        ratings = [
            [value for cell in evaluation.cells if cell.metric == judge.name for value in cell.values]
            for judge in same_rubric
        ]
        agreements[same_rubric[0].rubric.name] = agreement(ratings, "interval")
    return agreements


def keep(
    folder: Path,
    evaluation: Evaluation,
    comparisons: Sequence[SystemComparison],
    axes: tuple[AxisName, AxisName] | None,
) -> None:
    """Write the results, and a figure if there are axes, into a folder."""
    from langchain_eft.evaluation import frontier, plot_frontier

    lines = [evaluation.to_markdown(), *(f"\n{comparison}" for comparison in comparisons)]
    (folder / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "results.json").write_text(evaluation.to_json(), encoding="utf-8")
    if axes is not None:
        plot_frontier(frontier(evaluation, *axes), folder / "frontier.svg")


def show(
    evaluation: Evaluation, comparisons: Sequence[SystemComparison], agreements: dict[str, JudgeAgreement]
) -> None:
    """Print the results, and on stderr what the judges took and left ungraded."""
    console = Console(highlight=False)
    console.print(results_table(evaluation))
    for comparison in comparisons:
        console.print(str(comparison), soft_wrap=True)
    for rubric, agreement in agreements.items():
        alpha = "undefined" if agreement.alpha is None else f"{agreement.alpha:.2f}"
        console.print(f"Judges on {rubric}: {agreement.raw.value:.0%} equal, Krippendorff's alpha {alpha}.")
    unscored = sum(cell.unscored for cell in evaluation.cells)
    if unscored:
        note(f"{unscored} answers have no score: the judge's reply could not be parsed.", "yellow")
    used = sum(cell.grade_usage["total_tokens"] for cell in evaluation.cells)
    used += sum(comparison.usage["total_tokens"] for comparison in comparisons)
    if used:
        note(f"The judges used {used} tokens.")


def results_table(evaluation: Evaluation) -> Table:
    """The evaluation as a table: a row for each task and metric, a column for each system."""
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
