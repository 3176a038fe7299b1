"""Run the experiments and write the page: `python -m reproduction [--quick]`.

Stored sections of the same sizes are kept, and so are answers. So an interrupted run continues.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import processor
from langchain_eft.engine.cores import usable_cores
from langchain_eft.evaluation import Runner
from reproduction.bench import FULL, LARGE_ADAPTERS, QUICK, Bench, Sizes
from reproduction.experiments import EXPERIMENTS
from reproduction.page import write_page

ROOT = Path(__file__).parents[1]
notes = Console(stderr=True, highlight=False)


def reproduce(
    llm: EFTChatModel,
    folder: Path,
    page: Path,
    figures: Path,
    sizes: Sizes,
    only: list[str],
    *,
    again: bool,
    large_adapters: Path = LARGE_ADAPTERS,
) -> None:
    """Run experiments and write the page.

    Args:
        llm: The family, greedy.
        folder: The folder for answers and sections.
        page: The page to write.
        figures: Folder for its figures.
        sizes: The numbers of cases.
        only: Names of experiments; empty for all.
        again: Also run experiments that are done.
        large_adapters: Folder of adapters of the base itself.
    """
    figures.mkdir(parents=True, exist_ok=True)
    console = notes if notes.is_terminal else None
    bench = Bench(llm, Runner(folder, console=console, seed=0), sizes, figures, folder, large_adapters)
    for name in only or EXPERIMENTS:
        section_file = folder / f"{name}.json"
        if not again and _sizes(section_file) == asdict(sizes):
            continue
        notes.print(f"[bold]{name}[/bold]")
        section_file.write_text(json.dumps(_run(bench, name), indent=1, ensure_ascii=False), encoding="utf-8")
        _write(folder, page, figures)
    _write(folder, page, figures)
    notes.print(f"Wrote {page}", soft_wrap=True)


def _run(bench: Bench, name: str) -> dict[str, Any]:
    started, cpu, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    section = asdict(EXPERIMENTS[name](bench))
    run = {
        "machine": f"{processor()}, {usable_cores()} cores, {platform.system()}",
        "day": datetime.now(UTC).date().isoformat(),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "load": max(load, os.getloadavg()[0]),
        "cores": usable_cores(),
        "sizes": asdict(bench.sizes),
    }
    return {**section, "run": run}


def _sizes(file: Path) -> dict[str, int] | None:
    if not file.is_file():
        return None
    sizes: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))["run"]["sizes"]
    return sizes


def _missing(folder: Path, planned: list[str]) -> list[str]:
    """Experiments that are neither done nor planned."""
    return [name for name in EXPERIMENTS if name not in planned and not (folder / f"{name}.json").is_file()]


def _write(folder: Path, page: Path, figures: Path) -> None:
    figures.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json" for name in EXPERIMENTS]
    sections = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    text = write_page(sections, list(EXPERIMENTS), os.path.relpath(figures, page.parent))
    page.write_text(text, encoding="utf-8")
    kept = [{name: section[name] for name in ("name", "run", "data")} for section in sections]
    (figures / "results.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run a few cases of each experiment, in about 6 minutes.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(EXPERIMENTS)}.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat experiments that are done.")] = False,
    write_only: Annotated[
        bool, typer.Option("--write-only", help="Write the page from the experiments that are done.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="The folder for answers.")] = ROOT / "build" / "reproduction",
) -> None:
    """Reproduce the paper's findings with the smol family, and write docs/reproduction.md.

    If experiments are missing, because `--only` names others, the page goes to the folder of the answers.
    """
    unknown = sorted(set(only or ()) - set(EXPERIMENTS))
    if unknown:
        raise typer.BadParameter(f"{unknown} are unknown: choose from {sorted(EXPERIMENTS)}.")
    results = folder / "quick" if quick else folder
    missing = _missing(results, [] if write_only else only or list(EXPERIMENTS))
    # What lacks experiments, or has few cases, does not overwrite the page of a full run.
    publish = not quick and not missing
    page = ROOT / "docs" / "reproduction.md" if publish else results / "reproduction.md"
    figures = ROOT / "docs" / "reproduction" if publish else results
    if missing:
        notes.print(f"Not in this page, because they have not been run: {', '.join(missing)}.")
    if write_only:
        _write(results, page, figures)
        return
    llm = EFTChatModel(temperature=0)
    reproduce(llm, results, page, figures, QUICK if quick else FULL, only or [], again=again)


if __name__ == "__main__":
    typer.run(main)
