"""What callers hand to the engine and what they get back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from langchain_eft.engine.events import Event
from langchain_eft.engine.limits import LONGEST_DRAFT, MOST_TOP_LOGPROBS
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture

Speculation = Literal["auto", "off"] | Annotated[int, Field(ge=0, le=LONGEST_DRAFT)]
"""Tokens drafted per round: as many as pays, none, or a fixed number."""


class SamplingParams(BaseModel):
    """How a token is drawn from p. All filters act on p, after the EFT formula.

    Order: penalties and bias, temperature, top-k, top-p, min-p.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """0 is greedy decoding."""

    top_k: int = Field(default=0, ge=0)
    """Keep the k most probable tokens; 0 keeps all."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the smallest set of tokens with this much probability (nucleus sampling, Holtzman et al. 2020)."""

    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens less probable than this share of the most probable one."""

    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Multiplies the log-probability of every token of prompt and answer (Keskar et al. 2019)."""

    frequency_penalty: float = Field(default=0.0, allow_inf_nan=False)
    """Subtracted from the log-probability of a token once per occurrence in the answer."""

    presence_penalty: float = Field(default=0.0, allow_inf_nan=False)
    """Subtracted once from the log-probability of every token that the answer holds."""

    logit_bias: Annotated[dict[int, float], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[int, float]()
    )
    """Added to the log-probability of single token ids."""

    seed: int = Field(default_factory=lambda: secrets.randbits(63), ge=0, lt=2**63)
    """Same seed, same text, whatever else is in the batch."""

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty or bias is on."""
        return bool(
            self.repetition_penalty != 1 or self.frequency_penalty or self.presence_penalty or self.logit_bias
        )


class GenerationRequest(BaseModel):
    """One completion: a prompt in token ids, and how to decode it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_ids: tuple[int, ...] = Field(min_length=1)
    """The main prompt: what every term reads whose behaviour asks for nothing else."""

    contexts: Annotated[dict[str, tuple[int, ...]], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, tuple[int, ...]]()
    )
    """What some terms read instead: the other prompt of behaviours that compare two, by the behaviour's name,
    and that of base and references, as `<base>`, where the recipe has a template of their own."""

    mixture: Mixture = Field(default_factory=Mixture)

    upscale_strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """beta: how strongly the large base's knowledge acts; 0 leaves the small models alone."""

    upscale_top_p: float = Field(default=1.0, gt=0, le=1)
    """Below 1, tokens outside this nucleus of the small mixture get no up-scaling."""

    sampling: SamplingParams = Field(default_factory=SamplingParams)
    max_tokens: int = Field(default=512, ge=1)

    speculation: Speculation = "auto"
    """Changes the speed, never the text."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    grammar: str | None = None
    """What the answer must look like, as a Lark grammar in llguidance's dialect."""

    visible_tokens: frozenset[int] = frozenset()
    """Special tokens that are part of the text, such as those that open a tool call."""

    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    """Report log p of each token and of this many of the most probable ones; None reports nothing."""

    trace: bool = False
    """Report what every model contributes to each token."""


@dataclass
class Generation:
    """A submitted request: the engine delivers its events, the caller may cancel it."""

    request: GenerationRequest
    deliver: Callable[[Event], None]
    """Called from the engine thread; must not block."""

    submitted: float = field(default_factory=time.perf_counter)
    cancelled: bool = False

    def cancel(self) -> None:
        """Free the row at the next round; nothing more is delivered. Idempotent."""
        self.cancelled = True
