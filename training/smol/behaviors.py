"""Teach the reference a behavior with the package's own `teach`.

python -m training.smol.behaviors NAME WORK

Needs the preset's base and reference, and the adapter that a recipe starts from. Writes WORK/NAME.jsonl (the
conversations) and WORK/NAME (the behavior's folder). Answers of the base and checkpoints are kept in WORK:
the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_eft.refusals import REFUSALS
from langchain_eft.teaching import Settings, teach

from .harmless import harmless_conversations
from .tools import tools_conversations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from langchain_eft.engine.progress import Progress


@dataclass(frozen=True)
class Recipe:
    """How a behavior is made.

    Attributes:
        write: Returns the conversations, as rows that `teach` reads. It gets a folder for intermediate files,
            and what receives the progress.
        settings: How the adapter is trained. `start` is the name of a folder in the work folder.
        style: A regular expression that answers with the behavior match, or None.
    """

    write: Callable[[Path, Progress], Iterable[dict[str, Any]]]
    settings: Settings
    style: str | None = None


RECIPES = {
    "harmless-start": Recipe(
        partial(harmless_conversations, seed=20),
        Settings(rank=32, steps=850, batch_size=16, learning_rate=1e-3, precision="bfloat16"),
        style=REFUSALS,
    ),
    "harmless": Recipe(
        partial(harmless_conversations, seed=21),
        Settings(start="harmless-start", steps=600, batch_size=16, learning_rate=7e-4, precision="bfloat16"),
        style=REFUSALS,
    ),
    "tools-start": Recipe(
        partial(tools_conversations, seed=11),
        Settings(start="tools-first", steps=720, learning_rate=1e-3, precision="bfloat16"),
    ),
    "tools-second": Recipe(
        partial(tools_conversations, seed=12, first_share=0.4),
        Settings(start="tools-start", steps=300, learning_rate=7e-4, precision="bfloat16"),
    ),
    "tools-third": Recipe(
        partial(tools_conversations, seed=13, first_share=0.3),
        Settings(start="tools-second", steps=500, learning_rate=7e-4, precision="bfloat16"),
    ),
}


def make(name: str, work: Path, progress: Progress) -> Path:
    """Make a behavior, and return its folder."""
    recipe = RECIPES[name]
    work.mkdir(parents=True, exist_ok=True)
    file, folder = work / f"{name}.jsonl", work / name
    if not file.is_file():
        rows = [json.dumps(row) + "\n" for row in recipe.write(work, progress)]
        file.write_text("".join(rows), encoding="utf-8")
    settings = recipe.settings
    if settings.start is not None:
        settings = replace(settings, start=str(work / settings.start))
    resume = folder.with_name(f"{name}.part").is_dir()
    taught = teach(
        name, file, folder=folder, settings=settings, style=recipe.style, resume=resume, progress=progress
    )
    return taught.folder


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES), help="the behavior")
    parser.add_argument("work", type=Path, help="folder for what is made")
    arguments = parser.parse_args()
    print(make(arguments.name, arguments.work, lambda message: print(message, flush=True)))


if __name__ == "__main__":
    main()
