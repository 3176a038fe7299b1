"""Numbers as the page says them: cells of tables, and findings in words."""

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
    """Several evaluations as one."""
    return replace(evaluations[0], cells=tuple(cell for each in evaluations for cell in each.cells))


def shown_cell(evaluations: Iterable[Evaluation], system: str, task: str, metric: str) -> str:
    """A cell of whichever evaluation has it, or `-`."""
    for evaluation in evaluations:
        for cell in evaluation.cells:
            if (cell.system, cell.task, cell.metric) == (system, task, metric):
                return cell.shown()
    return "-"


def systems_of(evaluation: Evaluation) -> list[str]:
    """The systems of an evaluation, in order."""
    return list(dict.fromkeys(cell.system for cell in evaluation.cells))


def captioned(caption: str, table: str) -> str:
    """A table with its caption, if there is one, before it."""
    return f"{caption}\n\n{table}" if caption else table


def bars(evaluation: Evaluation, systems: Mapping[str, str]) -> dict[str, Estimate]:
    """Shares of capitals, of systems by their labels."""
    found = {label: evaluation.cell(name, "capitals").estimate for label, name in systems.items()}
    return {label: each for label, each in found.items() if each is not None}


def pair_table(
    setting: str,
    values: Sequence[float],
    large: Evaluation,
    small: Evaluation,
    columns: Sequence[tuple[str, str]],
) -> str:
    """A sweep with the base beside the same without it."""
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
    """The figures of measured.json."""
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
    """A share, or `-`."""
    return "-" if share is None else f"{share:.1%}".replace("%", " %")


def gain(evaluation: Evaluation, system: str, low: str, high: str) -> str:
    """Share of a gap in capitals that a system closes, with its interval."""
    closed = evaluation.gain(system, low, high, "capitals")
    return f"{number(closed.value)} ({number(closed.low)} to {number(closed.high)})"


def number(value: float) -> str:
    """A number, or `?` where there is none."""
    return f"{value:.2f}" if math.isfinite(value) else "?"


def paper_gains(direction: str, axis: str) -> str:
    """The range of the paper's Figure 3 over its sets of prompts and its families."""
    found = [v for kind, _, of, *values in paper.FIGURE_3 if (kind, of) == (direction, axis) for v in values]
    return f"{min(found):.2f} to {max(found):.2f}"


def paper_amplification(strength: float) -> list[str]:
    """The paper's figures at an up-scaling strength."""
    row = paper.AMPLIFICATION.get(strength, (None, None, None))
    return ["-" if value is None else f"{value:g}" for value in row]


def paper_truncation(top_p: float) -> list[str]:
    """The paper's figures at a nucleus."""
    errors, helpful = paper.TRUNCATION[top_p]
    return [f"{errors:.3f}", f"{helpful:g} %"]


def exactly(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(value, value, value, 1)


def ratios(rows: Mapping[tuple[str, str], Any], prompts: str, lengths: Sequence[int]) -> list[Estimate]:
    """Times plain EFT, for each draft length."""
    spreads = [rows[prompts, f"draft {length}"].ratio for length in lengths]
    return [Estimate(spread.median, spread.low, spread.high, 1) for spread in spreads]


# Findings


def sure(estimates: Sequence[Estimate | None]) -> list[Estimate]:
    """The estimates that there are."""
    return [each for each in estimates if each is not None]


def shown(estimate: Estimate | None, unit: str) -> str:
    """An estimate, or `-`."""
    return "-" if estimate is None else show(estimate, unit)


def target(what: str, found: Estimate | None, least: float) -> list[str]:
    """Whether a target is reached."""
    if found is None:
        return [f"{what}: not measured."]
    if found.value >= least:
        verdict = "reached"
    else:
        verdict = "missed, but inside the interval" if found.high >= least else "**missed**"
    return [f"{what}: {show(found, 'share')}; the target of {least:.0%} is {verdict}."]


def difference(evaluation: Evaluation, first: str, second: str, task: str) -> str:
    """A difference between two systems, paired by prompt."""
    found = evaluation.difference(first, second, task)
    verdict = "clear" if found.low > 0 or found.high < 0 else "not told from zero"
    points = found.scaled(100)
    return (
        f"{task}, {first} minus {second}: {points.value:+.1f} points "
        f"({points.low:+.1f} to {points.high:+.1f}), {verdict}."
    )


def monotone(what: str, estimates: Sequence[Estimate | None], *, rising: bool) -> str:
    """Whether a figure rises along a sweep."""
    values = [each.value for each in sure(estimates)]
    steps = [b - a if rising else a - b for a, b in pairwise(values)]
    falls = sum(step < 0 for step in steps)
    how = "at every step" if not falls else f"in {len(steps) - falls} of {len(steps)} steps"
    return f"{what.capitalize()} rises with the weight, or stays, {how}: {values[0]:.0%} to {values[-1]:.0%}."


def dominated_points(large: Frontier, small: Frontier) -> int:
    """Points of `small` that some point of `large` is at least as good as on both axes, and better on one."""
    signs = [1 if axis.higher_is_better else -1 for axis in (large.x, large.y)]

    def worth(point: Any) -> tuple[float, float]:
        return signs[0] * point.x.value, signs[1] * point.y.value

    ours = [worth(point) for point in large.points]
    theirs = [worth(point) for point in small.points]
    return sum(any(o[0] >= t[0] and o[1] >= t[1] and o != t for o in ours) for t in theirs)


def against_measured(facts: Evaluation, calls: Evaluation, refusals: Evaluation) -> list[str]:
    """Whether the figures of measured.json lie inside our intervals."""
    wanted = [(facts, "base", "capitals", MEASURED["L"]["capitals"]),
              (facts, "reference", "capitals", MEASURED["R"]["capitals"])]  # fmt: skip
    for name in BEHAVIORS:
        wanted += [(facts, f"tuned {name}", "capitals", MEASURED[f"T_{name}"]["capitals"]),
                   (facts, f"EFT {name}", "capitals", MEASURED[f"EFT_{name}"]["capitals"])]  # fmt: skip
    for kind in ("tuned", "EFT"):
        short = "T" if kind == "tuned" else "EFT"
        wanted.append((calls, f"{kind} tools", "familiar tools", MEASURED[f"{short}_tools"]["tool_exact"]))
        wanted.append(
            (refusals, f"{kind} harmless", "familiar harmful", MEASURED[f"{short}_harmless"]["refusal"])
        )
    outside = []
    for evaluation, system, task, share in wanted:
        found = evaluation.cell(system, task).estimate
        if found is None or not found.low <= share <= found.high:
            outside.append(f"{system} on {task} ({shown(found, 'share')} against {percent(share)})")
    agreed = len(wanted) - len(outside)
    tail = f"; outside: {'; '.join(outside)}" if outside else ""
    return [
        f"{agreed} of {len(wanted)} figures of `measured.json` lie inside the intervals measured here{tail}."
    ]


def numbers(*evaluations: Evaluation) -> dict[str, Any]:
    """Every number of some evaluations, without the answers."""
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
