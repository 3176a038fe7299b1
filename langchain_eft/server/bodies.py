"""The bodies of requests: OpenAI's fields, and those of this package."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from langchain_eft.engine.request import Speculation

_SAME_NAME = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "logit_bias", "seed", "upscale_strength", "upscale_top_p", "speculation", "trace",
)  # fmt: skip
"""Fields that are parameters of a call of the same name."""


class StreamOptions(BaseModel):
    """What a stream says beside the answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    """Send one more chunk, with the number of tokens."""

    include_obfuscation: bool | None = None
    """Has no effect: nothing is padded."""


class DecodingBody(BaseModel):
    """What chat and text completions have in common. Fields that are left out, or null, are the server's."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """The model's name, alone or with a mixture: `smol`, `smol:pirate=0.7,concise=0.3`, `smol:none`."""

    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    mixture: dict[str, Any] | None = None
    """Weight of each behavior: a number, or a schedule such as `{"start": 1, "end": 0, "tokens": 32}`."""

    upscale_strength: float | None = None
    upscale_top_p: float | None = None
    speculation: Speculation | None = None
    trace: bool | None = None
    """Report what every model contributes to each token, in `choices[].trace`."""

    return_token_ids: bool | None = None
    """Report token ids, in `prompt_token_ids` and `choices[].token_ids`."""

    user: str | None = Field(default=None, deprecated=True)
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None

    def decoding(self) -> dict[str, Any]:
        """The parameters of a call that this body sets."""
        given = {name: getattr(self, name) for name in (*_SAME_NAME, "max_tokens")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def includes_usage(self) -> bool:
        """Whether a stream counts its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(DecodingBody):
    """Body of `/v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    strict: bool | None = None
    """Enforce the schema of calls that the model makes by its own choice."""

    modalities: list[Literal["text"]] | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of a call of the chat model that this body sets."""
        given = {
            "n": self.n,
            "max_tokens": self.max_completion_tokens,
            "tools": self.tools,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": self.response_format,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
            "chat_template_kwargs": self.chat_template_kwargs,
            "strict": self.strict,
        }
        return self.decoding() | {name: value for name, value in given.items() if value is not None}
