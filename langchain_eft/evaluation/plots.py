"""Figures: frontiers, sweeps and bars, all with intervals, as PNG or SVG by the name of the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_eft.errors import MissingPlotsError
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.frontier import Axis, Frontier, Point
from langchain_eft.evaluation.statistics import Estimate

FORMATS = (".png", ".svg")


def plot_frontier(frontiers: Frontier | Mapping[str, Frontier], path: Path | str, title: str = "") -> None:
    """Systems on two axes, in their order as a line, the optimal ones filled.

    Args:
        frontiers: One, or several by label, all on the same axes.
        path: File to write.
        title: Above the figure.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: A file of another kind.
    """
    lines = {"": frontiers} if isinstance(frontiers, Frontier) else dict(frontiers)
    figure, axes = _figure(1)
    for label, each in lines.items():
        _draw_frontier(axes[0], each, label)
    any_one = next(iter(lines.values()))
    axes[0].set(title=title, xlabel=_label(any_one.x), ylabel=_label(any_one.y))
    if len(lines) > 1:
        axes[0].legend(frameon=False)
    _save(figure, path)


def _draw_frontier(axes: Any, frontier: Frontier, label: str) -> None:
    xs, ys = (_scaled(frontier.points, "x", frontier.x), _scaled(frontier.points, "y", frontier.y))
    (line,) = axes.plot([x.value for x in xs], [y.value for y in ys], "-", linewidth=1, label=label or None)
    for point, x, y in zip(frontier.points, xs, ys, strict=True):
        axes.errorbar(
            x.value, y.value, xerr=_error([x]), yerr=_error([y]), fmt="o", color=line.get_color(), capsize=2,
            linewidth=0.7, markerfacecolor=line.get_color() if point.optimal else "white",
        )  # fmt: skip
        axes.annotate(point.system, (x.value, y.value), textcoords="offset points", xytext=(6, 5), fontsize=8)


def plot_sweep(
    values: Sequence[float],
    lines: Mapping[str, Sequence[Estimate]],
    path: Path | str,
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    percent: bool = False,
) -> None:
    """Metrics as functions of a setting, with bands for the intervals.

    Args:
        values: The settings.
        lines: By label, an estimate for each setting.
        path: File to write.
        xlabel: Name of the setting.
        ylabel: Name of the metrics.
        title: Above the figure.
        percent: The metrics are shares.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: A file of another kind.
    """
    figure, (axes,) = _figure(1)
    for label, estimates in lines.items():
        shown = [each.scaled(100 if percent else 1) for each in estimates]
        (line,) = axes.plot(values, [each.value for each in shown], "o-", label=label)
        lows, highs = [each.low for each in shown], [each.high for each in shown]
        axes.fill_between(values, lows, highs, color=line.get_color(), alpha=0.15)
    axes.set(title=title, xlabel=xlabel, ylabel=f"{ylabel}, %" if percent else ylabel)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(frameon=False)
    _save(figure, path)


def plot_bars(
    groups: Mapping[str, Mapping[str, Estimate]],
    path: Path | str,
    *,
    ylabel: str,
    title: str = "",
    percent: bool = True,
) -> None:
    """Bars in groups, with intervals.

    Args:
        groups: By group, an estimate for each label.
        path: File to write.
        ylabel: What is shown.
        title: Above the figure.
        percent: The estimates are shares.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: A file of another kind.
    """
    figure, (axes,) = _figure(1)
    labels = list(dict.fromkeys(label for bars in groups.values() for label in bars))
    width = 0.8 / len(labels)
    for i, label in enumerate(labels):
        bars = [(j, each[label]) for j, each in enumerate(groups.values()) if label in each]
        places = [j + (i - (len(labels) - 1) / 2) * width for j, _ in bars]
        shown = [each.scaled(100 if percent else 1) for _, each in bars]
        heights = [each.value for each in shown]
        axes.bar(
            places, heights, width, yerr=_error(shown), capsize=2, label=label, error_kw={"linewidth": 0.8}
        )
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set(title=title, ylabel=f"{ylabel}, %" if percent else ylabel)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(columns: int) -> tuple[Any, Any]:
    try:
        figure = import_module("matplotlib.figure").Figure(figsize=(7 * columns, 4.6), layout="constrained")
    except ImportError as error:
        raise MissingPlotsError(
            'Plots need matplotlib, which is not installed: pip install "langchain-eft[plots]".'
        ) from error
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: Path | str) -> None:
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise EvaluationError(f"The figure {str(path)!r} is neither .png nor .svg: name it so.")
    # Without a date and random ids, the same numbers give the same file.
    with import_module("matplotlib").rc_context({"svg.hashsalt": "langchain-eft"}):
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=150, metadata=metadata)


def _scaled(points: Sequence[Point], name: str, axis: Axis) -> list[Estimate]:
    return [getattr(point, name).scaled(100 if axis.unit == "share" else 1) for point in points]


def _error(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the error bars, [2, count]; an interval without an end gets none."""
    lengths = [(each.value - each.low, each.high - each.value) for each in estimates]
    kept = [[length if math.isfinite(length) else 0.0 for length in pair] for pair in lengths]
    return [list(side) for side in zip(*kept, strict=True)]


def _label(axis: Axis) -> str:
    unit = "%" if axis.unit == "share" else axis.unit
    arrow = "→ better" if axis.higher_is_better else "← better"
    return f"{axis.task}: {axis.metric}, {unit} ({arrow})"
