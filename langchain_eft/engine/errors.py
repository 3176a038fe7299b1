"""The errors of the engine. Every message names the value and the remedy.

Each has the status with which `langchain-eft serve` answers, and the class of LangChain that calls raise:

    EngineError
        RecipeError                     400  ModelInvalidRequestError
            VocabularyMismatchError     400  ModelInvalidRequestError
        RequestError                    400  ModelInvalidRequestError
        CheckpointNotFoundError         404  ModelNotFoundError
        CheckpointCacheError            500  ModelError
        InsufficientDiskError           500  ModelError
        UnsupportedModelError           500  ModelInvalidRequestError
        ContextWindowError              400  ContextOverflowError
        RequestTimeoutError             408  ModelTimeoutError
        QueueFullError                  429  ModelRateLimitError
        InsufficientMemoryError         503  ModelError
        EngineClosedError               503  ModelAPIError
        DecodingError                   500  ModelAPIError
        DeviceLostError                 503  ModelError
        EngineUnreachableError          500  ModelConnectionError
        AuthenticationError             401  ModelAuthenticationError
        PermissionDeniedError           403  ModelPermissionDeniedError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Self


class EngineError(Exception):
    """Base class of all errors of the engine. Each is built from its message."""


class RecipeError(EngineError, ValueError):
    """A recipe, behavior or mixture cannot be decoded."""


class RequestError(EngineError, ValueError):
    """A request has a parameter that the engine cannot serve."""


class CheckpointNotFoundError(EngineError):
    """A checkpoint is neither on this machine nor reachable on the hub, or its files are damaged."""


class CheckpointCacheError(EngineError):
    """The folder for converted weights cannot be written."""


class InsufficientDiskError(EngineError):
    """A model does not fit on the disk."""


class UnsupportedModelError(EngineError):
    """Decoding a model here would not give the results of its own forward pass."""


class VocabularyMismatchError(RecipeError):
    """Two models of one recipe give different meanings to the same token id."""


class ContextWindowError(EngineError, ValueError):
    """Prompt and answer do not fit the context window.

    Attributes:
        prompt_tokens: Length of the prompt, like the others None if a server does not say it.
        max_tokens: Requested length of the answer.
        window: Largest length of prompt and answer together.
    """

    prompt_tokens: int | None = None
    max_tokens: int | None = None
    window: int | None = None

    @classmethod
    def of(cls, prompt_tokens: int, max_tokens: int, window: int, *, counted_all: bool = True) -> Self:
        """The error of a prompt of at least so many tokens.

        Args:
            prompt_tokens: As the attribute.
            max_tokens: As the attribute.
            window: As the attribute.
            counted_all: Whether the prompt has no more tokens than that.
        """
        left = window - prompt_tokens
        remedy = f"lower `max_tokens` to {left}, or shorten" if left > 0 else "shorten or summarize"
        count = f"{prompt_tokens}" if counted_all else f"more than {prompt_tokens}"
        error = cls(
            f"The prompt has {count} tokens and the request asks for {max_tokens} more, but the context "
            f"window is {window} tokens: {remedy} the messages."
        )
        error.prompt_tokens, error.max_tokens, error.window = prompt_tokens, max_tokens, window
        return error


class RequestTimeoutError(EngineError):
    """An answer took longer than the request's timeout."""

    @classmethod
    def after(cls, timeout: float | None) -> Self:
        """The error once so many seconds are over."""
        return cls(
            f"The answer was not complete after timeout={timeout} seconds: raise `timeout`, or lower "
            "`max_tokens`."
        )


class QueueFullError(EngineError):
    """The queue of waiting requests is full."""

    @classmethod
    def of(cls, waiting: int, running: int) -> Self:
        """The error of a queue, by its numbers of requests."""
        return cls(
            f"The queue is full: {waiting} requests wait and {running} run. Try again later, send fewer "
            "requests at a time, or raise `max_queued_requests`."
        )


class InsufficientMemoryError(EngineError):
    """The weights, or the keys and values of a single answer, do not fit the device."""


class EngineClosedError(EngineError):
    """The engine was closed before or while the request ran."""


class DecodingError(EngineError):
    """Decoding failed while a request ran; the original exception, if there is one, is the cause.

    Attributes:
        is_retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, is_retryable: bool = True) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


class DeviceLostError(EngineError):
    """The device failed and does not answer in this process any more."""


class EngineUnreachableError(EngineError):
    """There is no connection to the server of a remote engine, or it broke."""


class AuthenticationError(EngineError):
    """The server of a remote engine does not know the key, or wants one."""


class PermissionDeniedError(EngineError):
    """The server of a remote engine does not allow the caller what it asks for."""


def release_frames(error: BaseException) -> None:
    """Free the local variables of all frames that an exception has passed: they may hold models or tensors.

    The same is done for the exceptions that it was raised beside. Frames that still run stay as they are.
    """
    raised: BaseException | None = error
    while raised is not None:
        clear_frames(raised.__traceback__)
        raised = raised.__context__


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Report whatever a library raises while it reads a damaged file as one error that names the file.

    Args:
        path: The file or folder.
        remedy: What the user can do.

    Raises:
        CheckpointNotFoundError: Reading failed.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        raise CheckpointNotFoundError(
            f"{str(path)!r} cannot be read ({type(error).__name__}: {error}): {remedy}."
        ) from error
