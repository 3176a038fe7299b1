"""The open engines of this process, one for each recipe and configuration."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.open_engines import OpenEngines
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine


def find_engine(recipe: Recipe, config: EngineConfig) -> Engine | None:
    """The open engine of a recipe, or None. This does not wait for an engine that is being opened."""
    return _engines.find((recipe, config))


def open_engine(recipe: Recipe, config: EngineConfig | None = None, progress: Progress = silent) -> Engine:
    """The engine of a recipe and configuration, opened on first use and shared by the whole process.

    Args:
        recipe: The weights to load.
        config: How the engine uses the machine.
        progress: Receives messages while the engine opens.

    Raises:
        EngineError: The engine cannot be opened.
    """
    return _engines.open((recipe, config or EngineConfig()), progress)


def close_all() -> None:
    """Close every open engine. Engines that are open when the process exits close by themselves."""
    _engines.close_all()


_paused = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause Python's collector of reference cycles, in all threads. One that was off stays off.

    Importing torch and transformers, and loading models, makes about a million objects that stay. The
    collector would visit them again and again: a fifth of the time to the first token.
    """
    global _paused
    _paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # what a program has frozen stays frozen
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, which most collections skip
        _resume_collection()


def _resume_collection() -> None:
    global _paused
    if _paused:
        _paused = False
        gc.enable()


os.register_at_fork(after_in_child=_resume_collection)  # no thread of the child would


def _opened(key: tuple[Recipe, EngineConfig], progress: Progress) -> Engine:
    with collection_paused():
        return _imported_engine()(*key, progress, on_close=_engines.forget)


def _imported_engine() -> type[Engine]:
    """Import the engine, with torch and transformers. This takes seconds, so it waits until one is opened.

    It happens in a thread of its own, because Ctrl-C is raised in the main one: libraries turn an interrupted
    import into other errors, and half a module stays behind.
    """
    with ThreadPoolExecutor(1, "eft-import") as pool:
        module = pool.submit(import_module, "langchain_eft.engine.engine").result()
    engine: type[Engine] = module.Engine
    return engine


_engines = OpenEngines(_opened, one_at_a_time=True)
