"""Parameters of a call: their names, and the engine request that they make together with a prompt."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from langchain_eft.chat.prompts import Prompts
from langchain_eft.engine.error_text import describe, did_you_mean, quoted_names, shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.request import Decoding, GenerationRequest, SamplingParams

SAMPLING_PARAMETERS = frozenset(SamplingParams.model_fields)
"""Names of the sampling parameters."""

CALL_PARAMETERS = SAMPLING_PARAMETERS | {
    "answer_prefix", "max_tokens", "mixture", "model", "speculation", "stop", "stream", "timeout",
    "trace", "upscale_strength", "upscale_top_p",
}  # fmt: skip
"""Names of what every call may set."""

CHAT_PARAMETERS = CALL_PARAMETERS | {
    "chat_template_kwargs", "logprobs", "n", "output_version", "parallel_tool_calls", "reasoning_effort",
    "response_format",
    "stream_options", "stream_usage", "strict", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
"""Names of what a call of the chat model may set."""

MOST_ANSWERS = 1024
"""Largest number of answers of one call."""


class DecodingParameters(Decoding):
    """How a call is decoded, by its parameters."""

    model: str
    """The base model, as the caller named it."""

    sampling: Mapping[str, Any]
    """Fields of `SamplingParams`. Without a `seed`, every request draws its own."""

    shrink: bool
    """Lower `max_tokens` to what the prompt leaves of the context window."""

    timeout: float | None
    """Seconds that an answer may take, or None for no limit."""

    def request(self, prompts: Prompts, room: int, **fields: Any) -> GenerationRequest:
        """The engine request for a prompt.

        Args:
            prompts: What the models read.
            room: Tokens that the context window leaves for the answer.
            fields: Further fields of the request.

        Raises:
            RequestError: A value that the engine does not accept.
        """
        decoding = {name: getattr(self, name) for name in Decoding.model_fields}
        if self.shrink:
            decoding["max_tokens"] = max(1, min(self.max_tokens, room))
        try:
            return GenerationRequest(
                prompt_ids=prompts.main,
                contexts=prompts.named,
                sampling=SamplingParams(**self.sampling),
                **{**decoding, **fields},
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error


def refuse_unknown(names: Iterable[str], allowed: Collection[str], receiver: str) -> None:
    """Refuse parameters that do not exist, and suggest similar ones.

    Args:
        names: Names of the parameters that were given.
        allowed: Names of the parameters that exist.
        receiver: What the parameters were given to, for the message.

    Raises:
        RequestError: A name that is not allowed.
    """
    unknown = set(names) - set(allowed)
    if unknown:
        raise RequestError(
            f"Unknown parameter {quoted_names(unknown)} for {receiver}.{did_you_mean(unknown, allowed)} "
            f"Allowed are {quoted_names(allowed)}."
        )


def checked_timeout(timeout: Any) -> float | None:
    """The timeout of a call, in seconds.

    Raises:
        RequestError: It is not a positive number that a lock can wait for.
    """
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout <= threading.TIMEOUT_MAX):
        raise RequestError(
            f"timeout must be a positive number of seconds, at most {threading.TIMEOUT_MAX:.0f}, or None for "
            f"no limit, got {shown(timeout)}."
        )
    return timeout  # type: ignore[no-any-return]


def stop_strings(stop: Any) -> tuple[str, ...]:
    """The stop strings of a call.

    Raises:
        RequestError: It is neither a string nor a list of them.
    """
    if isinstance(stop, str):
        return (stop,)
    if not isinstance(stop, list | tuple | set | frozenset | None):
        raise RequestError(f"stop must be a string, a list of strings, or None, got {shown(stop)}.")
    return tuple(stop or ())


def options(name: str, value: Any) -> Mapping[str, Any]:
    """A parameter that holds options by name; None holds none.

    Args:
        name: The parameter's name, for the message.
        value: What was given for it.

    Raises:
        RequestError: It is not a dictionary.
    """
    if value is not None and not isinstance(value, Mapping):
        raise RequestError(f"{name} must be a dictionary of options, or None, got {shown(value)}.")
    return value or {}


def answer_count(n: Any) -> int:
    """The number of answers of a call.

    Raises:
        RequestError: It is not a positive integer, or too large.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_ANSWERS:
        raise RequestError(f"n must be a positive integer, at most {MOST_ANSWERS}, got {shown(n)}.")
    return n


def reseeded(request: GenerationRequest, count: int) -> tuple[GenerationRequest, ...]:
    """Requests for several answers to one prompt: each has its own seed, the first that of the request."""
    sampling = request.sampling
    seeds = ((sampling.seed + i) % 2**63 for i in range(count))
    return tuple(
        request.model_copy(update={"sampling": sampling.model_copy(update={"seed": seed})}) for seed in seeds
    )


def reported_logprobs(logprobs: bool, top_logprobs: int | None) -> int | None:  # noqa: FBT001
    """How many of the most probable tokens are reported at each position; None reports no log-probabilities.

    Raises:
        RequestError: `top_logprobs` without `logprobs`.
    """
    if top_logprobs is not None and not logprobs:
        raise RequestError(
            f"top_logprobs={shown(top_logprobs)} has no effect without logprobs=True: set logprobs=True, or "
            "leave top_logprobs out."
        )
    return (top_logprobs or 0) if logprobs else None
