"""Figures with intervals: frontiers, sweeps and bars. The name of the file decides between PNG and SVG."""

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
    """Plot systems on two axes, joined by a line in their order. Markers of optimal systems are filled.

    Args:
        frontiers: One frontier, or several by label on the same axes.
        path: File to write.
        title: Title above the figure.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: The file is neither a PNG nor an SVG.
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
    """Plot metrics as functions of a setting, with bands for the intervals.

    Args:
        values: Values of the setting.
        lines: An estimate for each value, by label.
        path: File to write.
        xlabel: Name of the setting.
        ylabel: Name of the metrics.
        title: Title above the figure.
        percent: Whether the metrics are shares.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: The file is neither a PNG nor an SVG.
    """
    figure, (axes,) = _figure(1)
    for label, estimates in lines.items():
        scaled = [each.scaled(100 if percent else 1) for each in estimates]
        (line,) = axes.plot(values, [each.value for each in scaled], "o-", label=label)
        lows, highs = [each.low for each in scaled], [each.high for each in scaled]
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
    """Plot bars in groups, with intervals.

    Args:
        groups: An estimate by group and label.
        path: File to write.
        ylabel: Name of the metric.
        title: Title above the figure.
        percent: Whether the estimates are shares.

    Raises:
        MissingPlotsError: matplotlib is not installed.
        EvaluationError: The file is neither a PNG nor an SVG.
    """
    figure, (axes,) = _figure(1)
    labels = list(dict.fromkeys(label for bars in groups.values() for label in bars))
    width = 0.8 / len(labels)
    for i, label in enumerate(labels):
        bars = [(j, each[label]) for j, each in enumerate(groups.values()) if label in each]
        positions = [j + (i - (len(labels) - 1) / 2) * width for j, _ in bars]
        scaled = [each.scaled(100 if percent else 1) for _, each in bars]
        heights = [each.value for each in scaled]
        axes.bar(
            positions,
            heights,
            width,
            yerr=_error(scaled),
            capsize=2,
            label=label,
            error_kw={"linewidth": 0.8},
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
        raise EvaluationError(
            f"The figure {str(path)!r} is neither .png nor .svg: give it one of these endings."
        )
    # Without a date and random ids, the same numbers give the same file.
    with import_module("matplotlib").rc_context({"svg.hashsalt": "langchain-eft"}):
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=150, metadata=metadata)


def _scaled(points: Sequence[Point], name: str, axis: Axis) -> list[Estimate]:
    return [getattr(point, name).scaled(100 if axis.unit == "share" else 1) for point in points]


def _error(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the error bars [2, count]; 0 where an interval has no end."""
    lengths = [(each.value - each.low, each.high - each.value) for each in estimates]
    kept = [[length if math.isfinite(length) else 0.0 for length in pair] for pair in lengths]
    return [list(side) for side in zip(*kept, strict=True)]


def _label(axis: Axis) -> str:
    unit = "%" if axis.unit == "share" else axis.unit
    arrow = "→ better" if axis.higher_is_better else "← better"
    return f"{axis.task}: {axis.metric}, {unit} ({arrow})"
