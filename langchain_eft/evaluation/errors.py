"""What can go wrong in an evaluation."""

from __future__ import annotations

from langchain_eft.engine.errors import EngineError


class EvaluationError(EngineError, ValueError):
    """A system, task, judge or folder that cannot be used; the message names the value and the remedy."""


class MissingDataError(EngineError, ImportError):
    """A package with data that is not installed."""
