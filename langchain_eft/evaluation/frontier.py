"""Trade-offs: systems as points of two metrics, and which of them are Pareto optimal."""

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
        unit: Unit of the metric.
        higher_is_better: Whether higher scores are better.
    """

    task: str
    metric: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Point:
    """One system.

    Attributes:
        system: Name of the system.
        x: Score on the first axis.
        y: Score on the second axis.
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
        points: One for each system, in their order.
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

    The means alone decide which systems are optimal. The intervals show how certain that is.

    Args:
        evaluation: The scores.
        x: Task and metric of the first axis. The default of the metric is the task's first one.
        y: Task and metric of the second axis.
        systems: Names of the systems; None for all.
        better: Whether higher scores are better on each axis, for metrics that do not define it.

    Raises:
        EvaluationError: A metric that was not measured, or that needs `better`.
    """
    names = (
        list(dict.fromkeys(cell.system for cell in evaluation.cells)) if systems is None else list(systems)
    )
    cells = [(evaluation.cell(name, *x), evaluation.cell(name, *y)) for name in names]
    axes = tuple(_axis(pair[0], given) for pair, given in zip(zip(*cells, strict=True), better, strict=True))
    scored = [(name, _estimate(a), _estimate(b)) for name, (a, b) in zip(names, cells, strict=True)]
    signs = [1 if axis.higher_is_better else -1 for axis in axes]
    worth = [(signs[0] * first.value, signs[1] * second.value) for _, first, second in scored]
    return Frontier(
        axes[0],
        axes[1],
        tuple(
            Point(name, first, second, optimal)
            for (name, first, second), optimal in zip(scored, pareto(worth), strict=True)
        ),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is not dominated by another, where higher is better on both axes."""
    return [
        not any(other[0] >= point[0] and other[1] >= point[1] and other != point for other in points)
        for point in points
    ]


def _axis(cell: Cell, given: bool | None) -> Axis:  # noqa: FBT001  (one of a pair)
    better = given if given is not None else cell.higher_is_better
    if better is None:
        raise EvaluationError(
            f"It is not defined whether higher {cell.metric!r} is better on {cell.task!r}: give "
            "better=(..., ...)."
        )
    return Axis(cell.task, cell.metric, cell.unit, better)


def _estimate(cell: Cell) -> Estimate:
    if cell.estimate is None:
        raise EvaluationError(f"No answer of {cell.system!r} to {cell.task!r} could be scored.")
    return cell.estimate
