"""What both kinds of servers say. Whatever is no such thing raises a `ValidationError`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.remote.errors import event_error

Choice = TypeVar("Choice", bound=BaseModel)
T = TypeVar("T")


class Said(BaseModel):
    """Data of a server, which may say more than is read here."""

    model_config = ConfigDict(frozen=True, strict=True)


Items = Annotated[list[T], Field(fail_fast=True)]
"""A list, of which no item is read behind the first wrong one."""

LARGEST_LISTING = 4 * 2**20
"""Bytes of what a server says about its models: prompts of behaviors are among it."""


def few(value: Any) -> Any:
    """Refuse an object of very many names, before each of them makes an error of its own."""
    if isinstance(value, dict) and len(value) > _MOST_NAMES:
        raise ValueError(f"an object of {len(value)} names")
    return value


_MOST_NAMES = 1000

Named = Annotated[dict[str, T], BeforeValidator(few)]
"""Values by name, such as that of a behavior."""

TokenId = Annotated[int, Field(ge=0, lt=2**32)]
"""What a tokenizer can decode; it may have fewer tokens."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Logprob = Annotated[
    float, Field(lt=math.inf), BeforeValidator(lambda value: -math.inf if value is None else value)
]
"""JSON has no infinite numbers: null is the logarithm of 0."""

MOST_TOP = MOST_TOP_LOGPROBS + 1
"""Alternatives at a position: vLLM adds the drawn token to those that are asked for."""


class Model(Said):
    """An entry of `/models`."""

    id: str
    owned_by: str
    root: str | None = None
    max_model_len: int | None = Field(default=None, ge=1)


class Models(Said):
    """The answer of `/models`."""

    data: Items[Model] = Field(min_length=1)


class PromptDetails(Said):
    """What `usage` says about the prompt."""

    cached_tokens: Count | None = None


class Usage(Said):
    """Tokens of an answer."""

    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that did not have to run; None if the server does not count them."""
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class Chunk(Said, Generic[Choice]):
    """An event of an answer's stream."""

    choices: list[Choice] = Field(default=[], max_length=1)
    usage: Usage | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the data of an event.

        Raises:
            EngineError: The answer failed.
            ValueError: It is no such event.
        """
        chunk = cls.model_validate_json(data)
        if chunk.error is not None:
            raise event_error(chunk.error)
        if "choices" not in chunk.model_fields_set:
            raise ValueError("an event without choices")
        return chunk


class Rewards(Said):
    """The answer of `/rewards`."""

    rewards: Items[Finite]


class Logprobs(Said):
    """The answer of `/logprobs`."""

    logprobs: Items[Items[Items[Logprob]]]
    usage: Usage
