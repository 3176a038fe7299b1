"""Errors of evaluations."""

from __future__ import annotations

from langchain_eft.engine.errors import EngineError


class EvaluationError(EngineError, ValueError):
    """A system, task, judge or folder that cannot be used."""


class MissingDataError(EngineError, ImportError):
    """A data package is not installed."""
