"""The errors of the engine. Every message names the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Any


class EngineError(Exception):
    """Base class of all errors of the engine."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, also in other processes, have the same message and attributes."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[EngineError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EngineError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


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
        prompt_tokens: Length of the prompt.
        max_tokens: Requested length of the answer.
        window: Largest length of prompt and answer together.

    Args:
        prompt_tokens: As above.
        max_tokens: As above.
        window: As above.
        counted_all: Whether the prompt has no more tokens than that.
    """

    def __init__(self, prompt_tokens: int, max_tokens: int, window: int, *, counted_all: bool = True) -> None:
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.window = window
        remaining_tokens = window - prompt_tokens
        remedy = (
            f"lower `max_tokens` to {remaining_tokens}, or shorten"
            if remaining_tokens > 0
            else "shorten or summarize"
        )
        count = f"{prompt_tokens}" if counted_all else f"more than {prompt_tokens}"
        super().__init__(
            f"The prompt has {count} tokens and the request asks for {max_tokens} more, but the context "
            f"window is {window} tokens: {remedy} the messages."
        )


class RequestTimeoutError(EngineError):
    """An answer took longer than the request's timeout."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(
            f"The answer was not complete after timeout={timeout} seconds: raise `timeout`, or lower "
            "`max_tokens`."
        )


class QueueFullError(EngineError):
    """The queue of waiting requests is full."""

    def __init__(self, waiting: int, running: int) -> None:
        super().__init__(
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
