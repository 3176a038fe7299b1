"""The data of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    pass


BASE = "base"
"""What `TracedToken.changed_by` calls the large model."""


class FrozenModel(BaseModel):
    """Data of a trace: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Alternative(FrozenModel):
    """A token whose probability was changed, and by how much: -1 to 1."""

    token: str
    change: float


class Change(FrozenModel):
    """How p differs from what it would be without a part of the formula."""

    total_variation: float
    """0 where nothing changed, 1 where nothing stayed: how often a sampler would draw another token."""

    up: Alternative
    """The token whose probability was raised most; it may be the one that was drawn."""

    down: Alternative
    """The token whose probability was lowered most."""


class Contribution(Change):
    """One behaviour's part in a token: the change is from p without this behaviour to p."""

    weight: float
    """w_i."""

    tuned: float
    """log F_i of the token."""

    reference: float
    """log S_i of the token."""

    contribution: float
    """`w_i (F_i - S_i)`: what the behaviour adds to log p of the token before normalising, in nats."""


class TracedToken(FrozenModel):
    """One token of an answer. p is the formula's: before temperature, penalties, filters and grammar."""

    id: int
    token: str
    """The token by itself."""

    text: str
    """What it adds to the text: nothing for end tokens, nor for a character that is not complete yet."""

    logprob: float
    """log p."""

    base: float
    """log L, the large model's."""

    small: float | None
    """The same under the small mixture, `S + sum_i w_i (F_i - S)`; None where no small model takes part."""

    from_base: Change
    """From the large model to p: what the behaviours changed together."""

    from_small: Change | None
    """From the small mixture to p: what the large model changed."""

    behaviors: dict[str, Contribution]
    """What each behaviour changed by itself."""

    cut: int = 0
    """Characters at the end of the text so far that a stop string took away."""

    @property
    def changed_by(self) -> str | None:
        """Who changed p most: a behaviour's name, `base`, or None where nobody changed a tenth of it."""
        changes = {name: part.total_variation for name, part in self.behaviors.items()}
        if self.from_small is not None:
            changes = {BASE: self.from_small.total_variation, **changes}
        most = max(changes, key=lambda name: changes[name], default=None)
        return most if most is not None and changes[most] >= 0.1 else None


class Word(FrozenModel):
    """A word of the answer and the largest total variation among its tokens."""

    text: str
    total_variation: float


class PartSummary(FrozenModel):
    """What one part of the formula did to the answer."""

    mean: float
    """Mean total variation: the share of tokens that a sampler would expect to differ without this part."""

    changed: float
    """Share of tokens with a total variation above a half: where another token was more likely than not."""

    words: tuple[Word, ...]
    """The words that changed most."""

    contribution: float | None = None
    """Mean of `w_i (F_i - S_i)` over the tokens, in nats; None for the large model."""


class TraceSummary(FrozenModel):
    """An answer's trace in a few numbers."""

    tokens: int
    base: PartSummary | None
    """What the large model changed of the small mixture; None where no small model takes part."""

    behaviors: dict[str, PartSummary]
    """What each behaviour changed."""

    def __str__(self) -> str:
        parts = {**({BASE: self.base} if self.base else {}), **self.behaviors}
        lines = [f"{self.tokens} tokens; share that would differ without each part:"]
        for name, part in parts.items():
            words = ", ".join(f"{word.text!r} {word.total_variation:.2f}" for word in part.words)
            lines.append(f"  {name}: {part.mean:.0%} (most: {words or 'nothing'})")
        return "\n".join(lines)


def traced_tokens(answer: BaseMessage | Generation) -> list[TracedToken]:
    """The traced tokens that a message, a generation or a chunk of either carries; none if it has none."""
    held = answer.response_metadata if isinstance(answer, BaseMessage) else answer.generation_info or {}
    return [TracedToken.model_validate(entry) for entry in held.get("trace", ())]
