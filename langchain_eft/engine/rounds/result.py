"""What a round has drawn, and what it has cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.draft import RowOutcome
from langchain_eft.engine.scheduling.request_state import RequestState


@dataclass
class RoundResult:
    """What a round has drawn, and what it has cost.

    Attributes:
        outcomes: What was drawn for each row that emits.
        undrawn: Requests that emit and have drawn nothing, for their log p is not finite, and the terms whose
            logits are not, where the round knows them.
        prefilled_tokens: Prompt tokens that the round has computed.
        draft_passes: Rows and seconds of each draft pass.
        verify_pass: Tokens and seconds of the verify pass, or None where they do not predict the next one.
    """

    outcomes: dict[RequestState, RowOutcome] = field(default_factory=dict)
    undrawn: dict[RequestState, tuple[Term, ...]] = field(default_factory=dict)
    prefilled_tokens: int = 0
    draft_passes: list[tuple[int, float]] = field(default_factory=list)
    verify_pass: tuple[int, float] | None = None
