"""The page: `docs/reproduction.md`, written from the sections and never by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """# The paper's findings, looked for in the smol family

Written by `make reproduce` from its results; do not edit. Mitchell et al. 2023 ([arXiv
2310.12962](https://arxiv.org/abs/2310.12962)) measured Llama-1, Llama-2 and Falcon, up to 180B,
with GPT-4 as judge. Here the same questions are put to the bundled family, a 135M base and 57M
small models, without a judge: facts are exact matches, behaviours are counted. So what can agree is
the direction of an effect, not its size.

Greedy decoding in float32. Shares have Wilson's 95 % intervals, means and differences (paired by
prompt) bootstrap ones; in brackets. The paper's numbers are read off its tables and figures. How
everything is counted is in [evaluation.md](evaluation.md).
"""


def write_page(sections: Sequence[Mapping[str, Any]], names: Sequence[str], figures: str) -> str:
    """The page's text.

    Args:
        sections: What was found, as stored.
        names: Every experiment, in order; those without a section are said to be missing.
        figures: Where the figures are, seen from the page.
    """
    found = {section["name"]: section for section in sections}
    parts = [HEAD, _runs(found, names)]
    parts += [_section(found[name], figures) for name in names if name in found]
    return "\n".join(parts).rstrip() + "\n"


def _runs(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = ["| experiment | machine | day | minutes | CPU minutes |", "| --- | --- | --- | ---: | ---: |"]
    for name in names:
        if name not in found:
            rows.append(f"| {name} | not run | - | - | - |")
            continue
        run = found[name]["run"]
        rows.append(
            f"| {name} | {run['machine']} | {run['day']} | {run['seconds'] / 60:.1f} | "
            f"{run['cpu_seconds'] / 60:.1f} |"
        )
    busy = [
        name for name in names if name in found and found[name]["run"]["load"] > found[name]["run"]["cores"]
    ]
    note = (
        f"\nThe machine had other work to do during {', '.join(busy)}: minutes, and speeds above all, are "
        "worse "
        "than on a quiet one. Answers do not depend on it.\n"
        if busy
        else ""
    )
    return "\n".join(rows) + "\n" + note


def _section(section: Mapping[str, Any], figures: str) -> str:
    lines = [f"## {section['title']}", "", section["question"], ""]
    for table in section["tables"]:
        lines += [table, ""]
    if section["figure"]:
        lines += [f"![{section['title']}]({figures}/{section['figure']})", ""]
    lines += [f"* {finding}" for finding in section["findings"]]
    return "\n".join(lines) + "\n"
