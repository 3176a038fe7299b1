"""The data of a trace."""

from __future__ import annotations

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation
from pydantic import Field

from langchain_eft.engine.recipe.frozen import FrozenModel

BASE_NAME = "base"
"""The name of the large model in `TracedToken.changed_by`."""


class Alternative(FrozenModel):
    """A token whose probability was changed, and by how much: -1 to 1."""

    id: int = Field(ge=0, lt=2**32)
    token: str
    change: float


class Change(FrozenModel):
    """How p differs from the distribution without a part of the formula."""

    total_variation: float
    """How often a sampler would draw another token: 0 where nothing changed, 1 where everything did."""

    up: Alternative
    """The token whose probability was raised most; it may be the drawn one."""

    down: Alternative
    """The token whose probability was lowered most."""


class Contribution(Change):
    """What one behavior contributes to a token. The change is from p without this behavior to p."""

    weight: float
    """w_i."""

    tuned: float
    """log F_i of the token."""

    reference: float
    """log S_i of the token."""

    contribution: float
    """`w_i (F_i - S_i)`: what the behavior adds to the token's log p before normalization, in nats."""

    opened: bool | None = None
    """Whether the gate of the weight was open; None for a weight without a gate."""


class TracedToken(FrozenModel):
    """One token of an answer.

    p is the distribution of the formula: before temperature, penalties, filters and grammar.
    """

    id: int
    token: str
    """The token by itself."""

    text: str
    """What the token adds to the text. Empty for end tokens, and while a character is incomplete."""

    logprob: float
    """log p."""

    base: float
    """log L, of the large model."""

    small: float | None
    """log-probability under the small mixture, `S + sum_i w_i (F_i - S)`; None without small models."""

    from_base: Change
    """From the large model to p: what all behaviors changed together."""

    from_small: Change | None
    """From the small mixture to p: what the large model changed."""

    behaviors: dict[str, Contribution]
    """What each behavior changed."""

    cut: int = 0
    """Characters at the end of the text so far that a stop string has removed."""

    @property
    def changed_by(self) -> str | None:
        """What changed p most: a behavior's name or `base`; None where no total variation reaches 0.1."""
        changes = {name: part.total_variation for name, part in self.behaviors.items()}
        if self.from_small is not None:
            changes = {BASE_NAME: self.from_small.total_variation, **changes}
        most = max(changes, key=lambda name: changes[name], default=None)
        return most if most is not None and changes[most] >= 0.1 else None


class Word(FrozenModel):
    """A word of the answer and the largest total variation among its tokens."""

    text: str
    total_variation: float


class PartSummary(FrozenModel):
    """What one part of the formula did to the answer."""

    mean: float
    """Mean total variation: the expected share of sampled tokens that would differ without this part."""

    changed: float
    """Share of tokens with a total variation above 0.5."""

    words: tuple[Word, ...]
    """The words that changed most."""

    contribution: float | None = None
    """Mean of `w_i (F_i - S_i)` over the tokens, in nats; None for the large model."""

    opened: float | None = None
    """Share of tokens for which the behavior's gate was open; None without a gate."""


class TraceSummary(FrozenModel):
    """The trace of an answer in a few numbers."""

    tokens: int
    base: PartSummary | None
    """What the large model changed of the small mixture; None without small models."""

    behaviors: dict[str, PartSummary]
    """What each behavior changed."""

    def __str__(self) -> str:
        parts = {**({BASE_NAME: self.base} if self.base else {}), **self.behaviors}
        if not parts:
            return f"{self.tokens} tokens of the base model alone."
        lines = [f"{self.tokens} tokens; share that would differ without each part:"]
        for name, part in parts.items():
            words = ", ".join(f"{word.text!r} {word.total_variation:.2f}" for word in part.words)
            gate = "" if part.opened is None else f", gate open for {part.opened:.0%}"
            lines.append(f"  {name}: {part.mean:.0%} (most: {words or 'nothing'}){gate}")
        return "\n".join(lines)


def traced_tokens(answer: BaseMessage | Generation) -> list[TracedToken]:
    """The traced tokens of a message, a generation, or a chunk of either; empty without a trace."""
    metadata = answer.response_metadata if isinstance(answer, BaseMessage) else answer.generation_info or {}
    return [TracedToken.model_validate(entry) for entry in metadata.get("trace", ())]
