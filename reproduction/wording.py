"""Format results for the page: cells of tables, and findings as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from langchain_eft.evaluation import Estimate, Evaluation, Frontier
from langchain_eft.evaluation.results import finite, markdown, show
from reproduction import paper
from reproduction.bench import BEHAVIORS
from reproduction.probes import MEASURED

# Tables


def joined(*evaluations: Evaluation) -> Evaluation:
    """Merge several evaluations into one."""
    return replace(evaluations[0], cells=tuple(cell for each in evaluations for cell in each.cells))


def format_cell(evaluations: Iterable[Evaluation], system: str, task: str, metric: str) -> str:
    """Format the cell of the first evaluation that has it, or `-`."""
    for evaluation in evaluations:
        for cell in evaluation.cells:
            if (cell.system, cell.task, cell.metric) == (system, task, metric):
                return cell.shown()
    return "-"


def systems_of(evaluation: Evaluation) -> list[str]:
    """Return the names of an evaluation's systems, in order."""
    return list(dict.fromkeys(cell.system for cell in evaluation.cells))


def captioned(caption: str, table: str) -> str:
    """Put a caption, if there is one, above a table."""
    return f"{caption}\n\n{table}" if caption else table


def bars(evaluation: Evaluation, systems: Mapping[str, str]) -> dict[str, Estimate]:
    """Return the share of right capitals of each system, by label."""
    estimates = {label: evaluation.cell(name, "capitals").estimate for label, name in systems.items()}
    return {label: each for label, each in estimates.items() if each is not None}


def pair_table(
    setting: str,
    values: Sequence[float],
    large: Evaluation,
    small: Evaluation,
    columns: Sequence[tuple[str, str]],
) -> str:
    """Make a table of a sweep: with the base, and next to it without the base."""
    header = [setting, *(f"{kind}: {task} {metric}" for kind in ("EFT", "small") for task, metric in columns)]
    rows = [
        [
            f"{value:g}",
            *(e.cell(s, *column).shown() for e, s in ((large, a), (small, b)) for column in columns),
        ]
        for value, a, b in zip(values, systems_of(large), systems_of(small), strict=True)
    ]
    return markdown(header, rows)


def measured_table() -> str:
    """Make a table of the figures in measured.json."""
    names = {"base": "L", "reference": "R"}
    for behavior in BEHAVIORS:
        names |= {f"tuned {behavior}": f"T_{behavior}", f"EFT {behavior}": f"EFT_{behavior}"}
    keys = ("capitals", "pirate", "tool_exact", "refusal", "refusal_benign")
    rows = [
        [name, *(percent(MEASURED[key].get(k)) for k in keys), f"{MEASURED[key]['len']:.1f}"]
        for name, key in names.items()
    ]
    header = [
        "system",
        "capitals",
        "pirate",
        "familiar tools",
        "familiar harmful",
        "benign (8 prompts)",
        "length",
    ]
    return markdown(header, rows)


def percent(share: float | None) -> str:
    """Format a share in percent, or `-`."""
    return "-" if share is None else f"{share:.1%}".replace("%", " %")


def gain(evaluation: Evaluation, system: str, low: str, high: str) -> str:
    """Format the share of a gap in capitals that a system closes, with its interval."""
    closed = evaluation.gain(system, low, high, "capitals")
    return f"{number(closed.value)} ({number(closed.low)} to {number(closed.high)})"


def number(value: float) -> str:
    """Format a number, or `?` if it is not finite."""
    return f"{value:.2f}" if math.isfinite(value) else "?"


def paper_gains(direction: str, axis: str) -> str:
    """Format the range of the paper's Figure 3 over its prompt sets and model families."""
    gains = [v for kind, _, of, *values in paper.FIGURE_3 if (kind, of) == (direction, axis) for v in values]
    return f"{min(gains):.2f} to {max(gains):.2f}"


def paper_amplification(strength: float) -> list[str]:
    """Format the paper's figures at an up-scaling strength."""
    row = paper.AMPLIFICATION.get(strength, (None, None, None))
    return ["-" if value is None else f"{value:g}" for value in row]


def paper_truncation(top_p: float) -> list[str]:
    """Format the paper's figures at a top-p value."""
    errors, helpful = paper.TRUNCATION[top_p]
    return [f"{errors:.3f}", f"{helpful:g} %"]


def exactly(value: float) -> Estimate:
    """Return an estimate without an interval."""
    return Estimate(value, value, value, 1)


def ratios(rows: Mapping[tuple[str, str], Any], prompts: str, lengths: Sequence[int]) -> list[Estimate]:
    """Return the speed relative to plain EFT, for each draft length."""
    spreads = [rows[prompts, f"draft {length}"].ratio for length in lengths]
    return [Estimate(spread.median, spread.low, spread.high, 1) for spread in spreads]


# Findings


def drop_missing(estimates: Sequence[Estimate | None]) -> list[Estimate]:
    """Drop missing estimates."""
    return [each for each in estimates if each is not None]


def format_estimate(estimate: Estimate | None, unit: str) -> str:
    """Format an estimate, or `-`."""
    return "-" if estimate is None else show(estimate, unit)


def target(what: str, estimate: Estimate | None, least: float) -> list[str]:
    """Say whether a target is reached."""
    if estimate is None:
        return [f"{what}: not measured."]
    if estimate.value >= least:
        verdict = "reached"
    else:
        verdict = "missed, but inside the interval" if estimate.high >= least else "**missed**"
    return [f"{what}: {show(estimate, 'share')}; the target of {least:.0%} is {verdict}."]


def difference(evaluation: Evaluation, first: str, second: str, task: str, metric: str | None = None) -> str:
    """Describe the difference between two systems, paired by prompt. The first metric is the default."""
    gap = evaluation.difference(first, second, task, metric)
    verdict = "clear" if gap.low > 0 or gap.high < 0 else "not distinguishable from zero"
    points = gap.scaled(100)
    return (
        f"{task}{f' ({metric})' if metric else ''}, {first} minus {second}: {points.value:+.1f} points "
        f"({points.low:+.1f} to {points.high:+.1f}), {verdict}."
    )


def monotone(what: str, estimates: Sequence[Estimate | None], *, rising: bool) -> str:
    """Say whether a figure rises along a sweep."""
    values = [each.value for each in drop_missing(estimates)]
    steps = [b - a if rising else a - b for a, b in pairwise(values)]
    falls = sum(step < 0 for step in steps)
    how = "at every step" if not falls else f"in {len(steps) - falls} of {len(steps)} steps"
    return (
        f"{what.capitalize()} rises with the weight or stays equal, {how}: "
        f"{values[0]:.0%} to {values[-1]:.0%}."
    )


def dominated_points(large: Frontier, small: Frontier) -> int:
    """Count the points of `small` that a point of `large` dominates: on no axis worse, on one better."""
    signs = [1 if axis.higher_is_better else -1 for axis in (large.x, large.y)]

    def worth(point: Any) -> tuple[float, float]:
        return signs[0] * point.x.value, signs[1] * point.y.value

    ours = [worth(point) for point in large.points]
    theirs = [worth(point) for point in small.points]
    return sum(any(o[0] >= t[0] and o[1] >= t[1] and o != t for o in ours) for t in theirs)


def against_measured(facts: Evaluation, calls: Evaluation, refusals: Evaluation) -> list[str]:
    """Say whether the figures of measured.json lie inside the intervals measured here."""
    expected = [(facts, "base", "capitals", MEASURED["L"]["capitals"]),
                (facts, "reference", "capitals", MEASURED["R"]["capitals"])]  # fmt: skip
    for name in BEHAVIORS:
        expected += [(facts, f"tuned {name}", "capitals", MEASURED[f"T_{name}"]["capitals"]),
                     (facts, f"EFT {name}", "capitals", MEASURED[f"EFT_{name}"]["capitals"])]  # fmt: skip
    for kind in ("tuned", "EFT"):
        short = "T" if kind == "tuned" else "EFT"
        expected.append((calls, f"{kind} tools", "familiar tools", MEASURED[f"{short}_tools"]["tool_exact"]))
        expected.append(
            (refusals, f"{kind} harmless", "familiar harmful", MEASURED[f"{short}_harmless"]["refusal"])
        )
    outside = []
    for evaluation, system, task, share in expected:
        estimate = evaluation.cell(system, task).estimate
        if estimate is None or not estimate.low <= share <= estimate.high:
            outside.append(
                f"{system} on {task} ({format_estimate(estimate, 'share')} against {percent(share)})"
            )
    num_inside = len(expected) - len(outside)
    tail = f"; outside: {'; '.join(outside)}" if outside else ""
    inside = f"{num_inside} of {len(expected)} figures of `measured.json`"
    return [f"{inside} lie inside the intervals measured here{tail}."]


def numbers(*evaluations: Evaluation) -> dict[str, Any]:
    """Return every number of some evaluations, without the answers."""
    kept = ("system", "task", "metric", "unit", "estimate", "values", "cases", "answer_usage")
    cells = [
        {
            name: asdict(cell.estimate) if name == "estimate" and cell.estimate else getattr(cell, name)
            for name in kept
        }
        for evaluation in evaluations
        for cell in evaluation.cells
    ]
    return {"cells": finite(cells)}
