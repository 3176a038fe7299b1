"""What one row drafts in a round, and what the round then draws for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.scheduling.draft_length import Source
from langchain_eft.engine.token_trace import TokenTrace


@dataclass(frozen=True)
class Draft:
    """The decision how a row drafts.

    Attributes:
        source: Whether the small models draft, or prompt lookup.
        count: K, how many tokens are drafted.
        lookup_tokens: What prompt lookup proposes, used or not.
    """

    source: Source = "model"
    count: int = 0
    lookup_tokens: tuple[int, ...] = ()

    @property
    def given_tokens(self) -> tuple[int, ...]:
        """The draft tokens that are known before the round; none where the small models draft."""
        return self.lookup_tokens[: self.count] if self.source == "lookup" else ()

    @property
    def runs_model(self) -> bool:
        """Whether the small models draft anything."""
        return self.source == "model" and self.count > 0

    def shortened(self, count: int) -> Draft:
        """The same with at most `count` tokens."""
        return replace(self, count=min(self.count, count))


@dataclass(frozen=True)
class RowOutcome:
    """What a round has drawn for one row.

    Attributes:
        tokens: The accepted draft tokens, and the token after them.
        draft: The decision.
        draft_tokens: The tokens that were drafted.
        draft_samples: For each of `tokens`, the sample of q at its position, or None where none was drawn.
        logprobs: One for each of `tokens`, if the request asks for them.
        traces: The same.
    """

    tokens: Sequence[int]
    draft: Draft
    draft_tokens: Sequence[int] = ()
    draft_samples: Sequence[int | None] = ()
    logprobs: Sequence[TokenLogprobs] = ()
    traces: Sequence[TokenTrace] = ()

    @property
    def num_accepted(self) -> int:
        """Draft tokens that were accepted."""
        return len(self.tokens) - 1
