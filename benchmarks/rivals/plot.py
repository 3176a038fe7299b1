"""The plot of all rivals in a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.rival import Rival

_OURS, _THEIRS = "#2b6cb0", "#a0aec0"


def plot(report: dict[str, Any], rivals: Sequence[Rival], path: Path) -> None:
    """Draw one panel of bars for each number of requests, as an SVG file.

    Bars are medians, and their lines go from the lowest to the highest round.

    Args:
        report: What `arena.compete` returned.
        rivals: The rivals from top to bottom. Those that the report lacks are left out.
        path: File to write.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [rival.name for rival in rivals if rival.name in report["memory"]]
    counts = list(dict.fromkeys(score["requests"] for score in report["scores"]))
    figure = Figure(figsize=(3 + 2.4 * len(counts), 0.9 + 0.33 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axes, count in zip(panels, counts, strict=True):
        of = {each["contestant"]: each for each in report["scores"] if each["requests"] == count}
        spreads = [of[name]["tokens_per_second"] for name in names]
        medians = [each["median"] for each in spreads]
        errors = (
            [each["median"] - each["low"] for each in spreads],
            [each["high"] - each["median"] for each in spreads],
        )
        colors = [_OURS if name.startswith("our") else _THEIRS for name in names]
        axes.barh(names, medians, xerr=errors, color=colors, error_kw={"linewidth": 0.8})
        axes.set(title=f"{count} request{'s' if count > 1 else ''}", xlabel="tokens/s")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # for all panels, which share it
    # The same report gives the same file.
    with mpl.rc_context({"svg.hashsalt": "rivals", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
