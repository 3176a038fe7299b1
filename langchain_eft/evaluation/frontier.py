"""Trade-offs: systems as points of two metrics, and those that no other system beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.results import Cell, Evaluation
from langchain_eft.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Axis:
    """One metric as an axis.

    Attributes:
        task: Name of the task.
        metric: Name of the metric.
        unit: Its unit.
        higher_is_better: Whether more of it is better.
    """

    task: str
    metric: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Point:
    """One system.

    Attributes:
        system: Its name.
        x: Its score on the first axis.
        y: Its score on the second axis.
        optimal: Whether no other system is at least as good on both axes and better on one (Pareto).
    """

    system: str
    x: Estimate
    y: Estimate
    optimal: bool


@dataclass(frozen=True)
class Frontier:
    """Systems on two axes.

    Attributes:
        x: The first axis.
        y: The second axis.
        points: In the order of the systems.
    """

    x: Axis
    y: Axis
    points: tuple[Point, ...]


def frontier(
    evaluation: Evaluation,
    x: tuple[str, str | None],
    y: tuple[str, str | None],
    systems: Sequence[str] | None = None,
    *,
    better: tuple[bool | None, bool | None] = (None, None),
) -> Frontier:
    """Systems on the axes of two metrics.

    Which system is best is told by the means alone; the intervals say how sure that is.

    Args:
        evaluation: Where they were measured.
        x: Task and metric of the first axis; the task's first metric if that is None.
        y: The same for the second axis.
        systems: Which; None for all.
        better: Whether more is better, for metrics that do not say so themselves.

    Raises:
        EvaluationError: A metric that was not measured, or of which nobody says what is better.
    """
    names = (
        list(dict.fromkeys(cell.system for cell in evaluation.cells)) if systems is None else list(systems)
    )
    cells = [(evaluation.cell(name, *x), evaluation.cell(name, *y)) for name in names]
    axes = tuple(_axis(pair[0], given) for pair, given in zip(zip(*cells, strict=True), better, strict=True))
    found = [
        (name, _known(first), _known(second)) for name, (first, second) in zip(names, cells, strict=True)
    ]
    signs = [1 if axis.higher_is_better else -1 for axis in axes]
    worth = [(signs[0] * first.value, signs[1] * second.value) for _, first, second in found]
    return Frontier(
        axes[0],
        axes[1],
        tuple(
            Point(name, first, second, optimal)
            for (name, first, second), optimal in zip(found, pareto(worth), strict=True)
        ),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other dominates, where more is better on both axes."""
    return [
        not any(other[0] >= own[0] and other[1] >= own[1] and other != own for other in points)
        for own in points
    ]


def _axis(cell: Cell, given: bool | None) -> Axis:  # noqa: FBT001  (one of a pair)
    better = given if given is not None else cell.higher_is_better
    if better is None:
        raise EvaluationError(
            f"Nobody says whether more {cell.metric!r} is better on {cell.task!r}: give better=(..., ...)."
        )
    return Axis(cell.task, cell.metric, cell.unit, better)


def _known(cell: Cell) -> Estimate:
    if cell.estimate is None:
        raise EvaluationError(f"No answer of {cell.system!r} to {cell.task!r} could be scored.")
    return cell.estimate
