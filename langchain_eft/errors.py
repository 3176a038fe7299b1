"""The engine's errors as LangChain's typed errors, which retries, fallbacks and middleware recognize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from langchain_eft.engine.errors import (
    AuthenticationError,
    CheckpointCacheError,
    CheckpointNotFoundError,
    ContextWindowError,
    DecodingError,
    DeviceLostError,
    EngineClosedError,
    EngineError,
    EngineUnreachableError,
    InsufficientDiskError,
    InsufficientMemoryError,
    PermissionDeniedError,
    QueueFullError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
    UnsupportedModelError,
    VocabularyMismatchError,
)


class MissingPlotsError(EngineError, ImportError):
    """matplotlib is not installed."""


E = TypeVar("E", bound=EngineError)

_TWINS: dict[type[EngineError], type[EngineError]] = {}
"""For each engine error the class that is both this error and one of LangChain's."""


def _twin(name: str, error: type[E], kind: type[Exception]) -> type[E]:
    """Make the class that is both; it is built from its message, and described like the engine's error."""
    body = {"__doc__": error.__doc__, "__module__": __name__}
    twin = _TWINS[error] = type(name, (error, kind), body)
    return twin


EFTContextOverflowError = _twin("EFTContextOverflowError", ContextWindowError, ContextOverflowError)
EFTInvalidRequestError = _twin("EFTInvalidRequestError", RequestError, ModelInvalidRequestError)
EFTRecipeError = _twin("EFTRecipeError", RecipeError, ModelInvalidRequestError)
EFTVocabularyMismatchError = _twin("EFTVocabularyMismatchError", VocabularyMismatchError, EFTRecipeError)
EFTUnsupportedModelError = _twin("EFTUnsupportedModelError", UnsupportedModelError, ModelInvalidRequestError)
EFTModelNotFoundError = _twin("EFTModelNotFoundError", CheckpointNotFoundError, ModelNotFoundError)
EFTCheckpointCacheError = _twin("EFTCheckpointCacheError", CheckpointCacheError, ModelError)
EFTInsufficientMemoryError = _twin("EFTInsufficientMemoryError", InsufficientMemoryError, ModelError)
EFTInsufficientDiskError = _twin("EFTInsufficientDiskError", InsufficientDiskError, ModelError)
EFTTimeoutError = _twin("EFTTimeoutError", RequestTimeoutError, ModelTimeoutError)
EFTQueueFullError = _twin("EFTQueueFullError", QueueFullError, ModelRateLimitError)
EFTEngineClosedError = _twin("EFTEngineClosedError", EngineClosedError, ModelAPIError)
EFTDecodingError = _twin("EFTDecodingError", DecodingError, ModelAPIError)
EFTDeviceLostError = _twin("EFTDeviceLostError", DeviceLostError, ModelError)
EFTUnreachableError = _twin("EFTUnreachableError", EngineUnreachableError, ModelConnectionError)
EFTAuthenticationError = _twin("EFTAuthenticationError", AuthenticationError, ModelAuthenticationError)
EFTPermissionDeniedError = _twin(
    "EFTPermissionDeniedError", PermissionDeniedError, ModelPermissionDeniedError
)


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the engine's errors as their LangChain twins. Errors that are twins already stay as they are."""
    try:
        yield
    except EngineError as error:
        twin = next((_TWINS[kind] for kind in type(error).__mro__ if kind in _TWINS), None)
        if twin is None or isinstance(error, ModelError):
            raise
        translated = twin(*error.args)
        vars(translated).update(vars(error))
        raise translated from error
