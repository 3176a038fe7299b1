"""The engine's errors as LangChain's typed ones, so that retries, fallbacks and middleware recognise them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelError,
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
    InsufficientDiskError,
    InsufficientMemoryError,
    QueueFullError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
    UnsupportedModelError,
    VocabularyMismatchError,
)


class MissingPlotsError(EngineError, ImportError):
    """matplotlib is not installed."""


class EFTContextOverflowError(ContextWindowError, ContextOverflowError):
    """The prompt and its answer do not fit the context window."""


class EFTInvalidRequestError(RequestError, ModelInvalidRequestError):
    """A parameter, behaviour or message that cannot be served."""


class EFTRecipeError(RecipeError, ModelInvalidRequestError):
    """A recipe, behaviour or mixture that cannot be decoded."""


class EFTVocabularyMismatchError(VocabularyMismatchError, EFTRecipeError):
    """Two models of one recipe give different meanings to the same token id."""


class EFTUnsupportedModelError(UnsupportedModelError, ModelInvalidRequestError):
    """A model whose decoding here would not equal its own forward pass."""


class EFTModelNotFoundError(CheckpointNotFoundError, ModelNotFoundError):
    """A preset, model or adapter that is neither on this machine nor reachable."""


class EFTCheckpointCacheError(CheckpointCacheError, ModelError):
    """The folder for converted weights cannot be written."""


class EFTInsufficientMemoryError(InsufficientMemoryError, ModelError):
    """Weights, or the keys and values of a single answer, that do not fit the device."""


class EFTInsufficientDiskError(InsufficientDiskError, ModelError):
    """A model that the disk has no room for."""


class EFTTimeoutError(RequestTimeoutError, ModelTimeoutError):
    """The answer took longer than `timeout`."""


class EFTQueueFullError(QueueFullError, ModelRateLimitError):
    """More requests at once than the engine was told to let wait."""


class EFTEngineClosedError(EngineClosedError, ModelAPIError):
    """The engine was closed while the request ran; the next call opens it again."""


class EFTDecodingError(DecodingError, ModelAPIError):
    """The device failed while decoding; the original exception is the cause."""


_TWINS: dict[type[EngineError], type[EngineError]] = {
    twin.__bases__[0]: twin
    for twin in (
        EFTContextOverflowError, EFTInvalidRequestError, EFTRecipeError, EFTVocabularyMismatchError,
        EFTUnsupportedModelError, EFTModelNotFoundError, EFTCheckpointCacheError, EFTInsufficientMemoryError,
        EFTInsufficientDiskError, EFTTimeoutError, EFTQueueFullError,
        EFTEngineClosedError, EFTDecodingError,
    )
}  # fmt: skip
"""Every engine error's twin, which is that error and one of LangChain's."""


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the engine's errors as their LangChain twins; what is one already passes through."""
    try:
        yield
    except EngineError as error:
        twin = next((_TWINS[kind] for kind in type(error).__mro__ if kind in _TWINS), None)
        if twin is None or isinstance(error, ModelError):
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
