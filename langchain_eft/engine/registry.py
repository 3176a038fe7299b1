"""The open engines of this process, one for each recipe and configuration."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.garbage_collection import collection_paused
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_open: list[Engine] = []
_opening = threading.RLock()


def find_engine(recipe: Recipe, config: EngineConfig) -> Engine | None:
    """The open engine of a recipe, or None. This does not wait for an engine that is being opened."""
    of_recipe = (each for each in tuple(_open) if (each.recipe, each.config) == (recipe, config))
    return next((engine for engine in of_recipe if not engine.closed), None)


def open_engine(recipe: Recipe, config: EngineConfig | None = None, progress: Progress = silent) -> Engine:
    """The engine of a recipe and configuration, opened on first use and shared by the whole process.

    Args:
        recipe: The weights to load.
        config: How the engine uses the machine.
        progress: Receives messages while the engine opens.

    Raises:
        EngineError: The engine cannot be opened.
    """
    config = config or EngineConfig()
    with _opening:
        engine = find_engine(recipe, config)
        if engine is None:
            for closing in [each for each in tuple(_open) if each.closed]:
                closing.close()  # waits until its memory is free
            with collection_paused():
                engine = _imported_engine()(recipe, config, progress, on_close=_forget)
            _open.append(engine)
        return engine


def _imported_engine() -> type[Engine]:
    """Import the engine, with torch and transformers. This takes seconds, so it waits until one is opened.

    It happens in a thread of its own, because Ctrl-C is raised in the main one: libraries turn an interrupted
    import into other errors, and half a module stays behind.
    """
    with ThreadPoolExecutor(1, "eft-import") as pool:
        module = pool.submit(import_module, "langchain_eft.engine.engine").result()
    engine: type[Engine] = module.Engine
    return engine


def _forget(engine: Engine) -> None:
    with suppress(ValueError):  # an engine may be closed twice
        _open.remove(engine)


def close_all() -> None:
    """Close every open engine. Engines that are open when the process exits close by themselves."""
    for engine in tuple(_open):
        engine.close()


def _forget_all() -> None:
    """Begin anew in a forked process, where no thread decodes, and none releases the lock."""
    global _opening
    _opening = threading.RLock()
    _open.clear()


os.register_at_fork(after_in_child=_forget_all)
