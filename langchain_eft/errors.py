"""The engine's errors as LangChain's typed ones, so that retries, fallbacks and middleware recognise them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from pydantic import ValidationError

from langchain_eft.engine.errors import (
    CheckpointCacheError,
    CheckpointNotFoundError,
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    EngineError,
    InsufficientMemoryError,
    QueueFullError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
    UnsupportedModelError,
    VocabularyMismatchError,
)

__all__ = [
    "CheckpointCacheError",
    "EFTContextOverflowError",
    "EFTDecodingError",
    "EFTInvalidRequestError",
    "EFTModelNotFoundError",
    "EFTQueueFullError",
    "EFTTimeoutError",
    "EngineClosedError",
    "EngineError",
    "InsufficientMemoryError",
    "RecipeError",
    "UnsupportedModelError",
    "VocabularyMismatchError",
]


class EFTContextOverflowError(ContextWindowError, ContextOverflowError):
    """The prompt and its answer do not fit the context window."""


class EFTInvalidRequestError(RequestError, ModelInvalidRequestError):
    """A parameter, behaviour or message that cannot be served."""


class EFTModelNotFoundError(CheckpointNotFoundError, ModelNotFoundError):
    """A preset, model or adapter that is neither on this machine nor reachable."""


class EFTTimeoutError(RequestTimeoutError, ModelTimeoutError):
    """The answer took longer than `timeout`."""


class EFTQueueFullError(QueueFullError, ModelRateLimitError):
    """More requests at once than the engine was told to let wait."""


class EFTDecodingError(DecodingError, ModelAPIError):
    """The device failed while decoding; the original exception is the cause."""


_TWINS: list[tuple[type[EngineError], type[EngineError]]] = [
    (ContextWindowError, EFTContextOverflowError),
    (RequestTimeoutError, EFTTimeoutError),
    (QueueFullError, EFTQueueFullError),
    (CheckpointNotFoundError, EFTModelNotFoundError),
    (DecodingError, EFTDecodingError),
    (RecipeError, EFTInvalidRequestError),
    (RequestError, EFTInvalidRequestError),
]


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the engine's errors as their LangChain twins; what is one already passes through."""
    try:
        yield
    except EngineError as error:
        twin = next((twin for kind, twin in _TWINS if isinstance(error, kind)), None)
        if twin is None or isinstance(error, twin):
            raise
        translated = twin.__new__(twin)
        translated.args = error.args
        translated.__dict__.update(error.__dict__)
        raise translated from error


def describe(error: ValidationError) -> str:
    """A pydantic error as one sentence per parameter: name, value and what is allowed."""
    sentences = []
    for part in error.errors(include_url=False):
        where = f"{'.'.join(map(str, part['loc']))}={part['input']!r}: " if part["loc"] else ""
        sentences.append(where + part["msg"].removeprefix("Value error, "))
    return "; ".join(sentences)
