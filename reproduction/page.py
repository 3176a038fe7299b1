"""Write `docs/reproduction.md` from the stored sections. Do not edit that page by hand."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 110
"""Characters in a line of the page; tables and links are not broken."""

HEAD = """# Reproduction of the paper's findings

`make reproduce` writes this page from its results. Do not edit it.

Mitchell et al. 2023 ([arXiv 2310.12962](https://arxiv.org/abs/2310.12962)) measured Llama-1, Llama-2 and
Falcon, up to 180B, with GPT-4 as the judge. Here the bundled family answers the same questions: a 135M base
and 57M small models. There is no judge. Facts are exact matches, and behaviors are counted. So the direction
of an effect can agree with the paper, but not its size.

Decoding is greedy, in float32. Numbers in brackets are 95 % intervals: Wilson's for shares, bootstrap
intervals for means and for differences, which are paired by prompt. The paper's numbers are read off its
tables and figures. [evaluation.md](evaluation.md) explains how everything is counted.
"""

FIRST_ADAPTERS_UNTIL = "2026-11-29"
"""The last day on which `harmless` and `tools` were the first adapters."""

FIRST_ADAPTERS = (
    f"Runs up to {FIRST_ADAPTERS_UNTIL} measured the first adapters of `harmless` and `tools`. Both have "
    "been taught again since; `training/smol/README.md` has the figures of the old and the new ones side by "
    "side."
)


def write_page(sections: Sequence[Mapping[str, Any]], names: Sequence[str], figures: str) -> str:
    """Return the page's text.

    Args:
        sections: The stored sections.
        names: Every experiment, in order. The page marks those without a section as not run.
        figures: The folder of the figures, relative to the page.
    """
    section_by_name = {section["name"]: section for section in sections}
    parts = [HEAD, _runs(section_by_name, names)]
    parts += [_section(section_by_name[name], figures) for name in names if name in section_by_name]
    return "\n".join(parts).rstrip() + "\n"


def _runs(sections: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = ["| experiment | machine | day | minutes | CPU minutes |", "| --- | --- | --- | ---: | ---: |"]
    for name in names:
        if name not in sections:
            rows.append(f"| {name} | not run | - | - | - |")
            continue
        run = sections[name]["run"]
        rows.append(
            f"| {name} | {run['machine']} | {run['day']} | {run['seconds'] / 60:.1f} | "
            f"{run['cpu_seconds'] / 60:.1f} |"
        )
    busy = [
        name
        for name in names
        if name in sections and sections[name]["run"]["load"] > sections[name]["run"]["cores"]
    ]
    note = (
        f"The machine had other work to do during {', '.join(busy)}. These runs took longer than on an idle "
        "machine, and their speeds are lower. Answers do not depend on the load."
    )
    early = [name for name in sections if sections[name]["run"]["day"] <= FIRST_ADAPTERS_UNTIL]
    notes = [FIRST_ADAPTERS] if early else []
    notes += [note] if busy else []
    return "\n".join(rows) + "\n" + "".join(f"\n{wrapped(each)}\n" for each in notes)


def _section(section: Mapping[str, Any], figures: str) -> str:
    lines = [f"## {section['title']}", "", wrapped(section["question"]), ""]
    for table in section["tables"]:
        rows = (row if row.startswith("|") else wrapped(row) for row in table.split("\n"))
        lines += ["\n".join(rows), ""]
    if section["figure"]:
        lines += [f"![{section['title']}]({figures}/{section['figure']})", ""]
    lines += [wrapped(finding, "* ") for finding in section["findings"]]
    return "\n".join(lines) + "\n"


def wrapped(paragraph: str, marker: str = "") -> str:
    """Break a paragraph into lines.

    Args:
        paragraph: Text in which line breaks are spaces.
        marker: The marker of a list item; further lines are indented by its width.
    """
    text = " ".join(paragraph.split())
    return textwrap.fill(
        text, WIDTH, initial_indent=marker, subsequent_indent=" " * len(marker), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
