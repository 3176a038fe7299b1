"""A request to the engine, and the handle that the caller gets for it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from langchain_eft.engine.events import Event
from langchain_eft.engine.limits import (
    LARGEST_COEFFICIENT,
    LONGEST_DRAFT,
    LONGEST_STOP,
    MOST_STOPS,
    MOST_TOP_LOGPROBS,
    SMALLEST_SHARE,
    TEMPERATURES,
)
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture

Speculation = Literal["auto", "off"] | Annotated[int, Field(ge=0, le=LONGEST_DRAFT)]
"""Tokens drafted per round: the most worthwhile number, none, or a fixed number."""


def _drawable(temperature: float) -> float:
    lowest, highest = TEMPERATURES
    if temperature and not lowest <= temperature <= highest:
        raise ValueError(f"Use 0 for greedy decoding, or a temperature from {lowest:g} to {highest:g}.")
    return temperature


_Summand = Annotated[float, Field(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT, allow_inf_nan=False)]


class SamplingParams(BaseModel):
    """How a token is drawn from p. All filters act on p, after the EFT formula.

    Order: penalties and bias, temperature, top-k, top-p, min-p.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0), AfterValidator(_drawable)] = 1.0
    """Divides log p; 0 is greedy decoding. Between 1e-6 and 1e6 otherwise."""

    top_k: int = Field(default=0, ge=0, lt=2**63)
    """Keep the k most probable tokens; 0 keeps all."""

    top_p: float = Field(default=1.0, ge=SMALLEST_SHARE, le=1)
    """Keep the smallest set of tokens with this much probability (nucleus sampling, Holtzman et al. 2020)."""

    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens whose probability is less than this share of the largest one."""

    repetition_penalty: float = Field(default=1.0, ge=1 / LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT)
    """Multiplies the log-probability of every token that occurs in prompt or answer (Keskar et al. 2019)."""

    frequency_penalty: _Summand = 0.0
    """Subtracted from the log-probability of a token once per occurrence in the answer."""

    presence_penalty: _Summand = 0.0
    """Subtracted once from the log-probability of every token that occurs in the answer."""

    logit_bias: Annotated[dict[int, _Summand], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[int, float]()
    )
    """Added to the log-probability of tokens, by token id. -10000, the lowest bias, rules a token out."""

    seed: int = Field(default_factory=lambda: secrets.randbits(63), ge=0, lt=2**63)
    """The same seed gives the same answer, in any batch."""

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty changes log p."""
        return bool(self.repetition_penalty != 1 or self.frequency_penalty or self.presence_penalty)


class Decoding(BaseModel):
    """How an answer is decoded, whatever its prompt is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer_prefix: tuple[int, ...] = ()
    """Tokens that the answer begins with. The engine goes on behind them as if it had drawn them itself: they
    count for `max_tokens`, the seed's draws, weights that change, penalties, stop strings and the grammar."""

    mixture: Mixture = Field(default_factory=Mixture)

    upscale_strength: float = Field(default=1.0, ge=0, le=LARGEST_COEFFICIENT)
    """beta, the weight of the large base's knowledge; 0 decodes with the small models alone."""

    upscale_top_p: float = Field(default=1.0, ge=SMALLEST_SHARE, le=1)
    """Below 1, tokens outside this nucleus of the small mixture are not up-scaled."""

    max_tokens: int = Field(default=512, ge=1, lt=2**63)

    speculation: Speculation = "auto"
    """How much to draft. It changes the speed and never the answer."""

    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)], ...], Field(max_length=MOST_STOPS)
    ] = ()
    """Strings that end the answer and are not part of it."""

    trace: bool = False
    """Report what every model contributes to each token."""


class GenerationRequest(Decoding):
    """One completion: its prompts as token ids, and how to decode it."""

    prompt_ids: tuple[int, ...] = Field(min_length=1)
    """The main prompt. Every term reads it, unless `contexts` has another prompt for it."""

    contexts: Annotated[dict[str, tuple[int, ...]], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, tuple[int, ...]]()
    )
    """The other prompts, by name. A behavior that compares two prompts has its second one here, under its own
    name. If the recipe has a template for the base, the prompt of base and references is here as `<base>`."""

    sampling: SamplingParams = Field(default_factory=SamplingParams)

    grammar: str | None = None
    """A Lark grammar in llguidance's dialect that the answer must follow."""

    visible_tokens: frozenset[int] = frozenset()
    """Special tokens that are part of the text, such as the one that opens a tool call."""

    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    """Report log p of each token and of this many most probable tokens; None reports nothing."""


@dataclass(frozen=True)
class GivenAnswers:
    """Answers that are scored rather than decoded.

    Attributes:
        request: What would be decoded: its prompts, mixture and up-scaling count, and nothing else.
        answers: Token ids of each answer, at least one each.
    """

    request: GenerationRequest
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class AnswerScores:
    """Log p of given answers.

    Attributes:
        logprobs: For each request, answer and token of the answer its log p, before penalties, temperature
            and filters.
        cached_tokens: Tokens of main prompts that did not have to run, because another prompt, or the prefix
            cache, has them too.
    """

    logprobs: list[list[list[float]]]
    cached_tokens: int


@dataclass
class Generation:
    """A submitted request: the engine delivers its events, and the caller may cancel it."""

    request: GenerationRequest
    deliver: Callable[[Event], None]
    """Called from the engine's thread; must not block."""

    submitted: float = field(default_factory=time.perf_counter)
    cancelled: bool = False

    def cancel(self) -> None:
        """Stop the request at the next round; nothing more is delivered. Idempotent."""
        self.cancelled = True
