"""What can go wrong in the engine. Every message names the value and the remedy."""

from __future__ import annotations


class EngineError(Exception):
    """Base class of everything that the engine raises on purpose."""


class RecipeError(EngineError, ValueError):
    """A recipe, behaviour or mixture that cannot be decoded."""


class RequestError(EngineError, ValueError):
    """A request with a parameter that cannot be served."""


class CheckpointNotFoundError(EngineError):
    """Weights that are neither on this machine nor reachable."""


class CheckpointCacheError(EngineError):
    """The folder for converted weights cannot be written."""


class InsufficientDiskError(EngineError):
    """A model that the disk has no room for."""


class UnsupportedModelError(EngineError):
    """A model whose decoding here would not equal its own forward pass."""


class VocabularyMismatchError(RecipeError):
    """Two models of one recipe give different meanings to the same token id."""


class ContextWindowError(EngineError, ValueError):
    """A prompt that leaves no room for an answer.

    Attributes:
        prompt_tokens: Length of the prompt.
        max_tokens: Tokens that the answer asked for.
        window: Tokens that prompt and answer may have together.
    """

    def __init__(self, prompt_tokens: int, max_tokens: int, window: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.window = window
        room = window - prompt_tokens
        remedy = f"lower `max_tokens` to {room}, or shorten" if room > 0 else "shorten or summarize"
        super().__init__(
            f"The prompt has {prompt_tokens} tokens and {max_tokens} more were asked for, but the "
            f"context window holds {window}: {remedy} the messages."
        )


class RequestTimeoutError(EngineError):
    """An answer that took longer than its caller would wait."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(
            f"The answer was not complete after timeout={timeout} seconds: raise `timeout`, or lower "
            "`max_tokens`."
        )


class QueueFullError(EngineError):
    """More requests than the engine was told to let wait."""

    def __init__(self, waiting: int, running: int) -> None:
        super().__init__(
            f"{waiting} requests wait already while {running} run: try again later, send fewer at a time, or "
            "raise `max_queued_requests`."
        )


class InsufficientMemoryError(EngineError):
    """Weights, or the keys and values of a single answer, that do not fit the device."""


class EngineClosedError(EngineError):
    """The engine was closed while, or before, the request ran."""


class DecodingError(EngineError):
    """The device failed while a request ran; the original exception is the cause."""
