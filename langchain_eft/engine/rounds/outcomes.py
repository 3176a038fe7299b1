"""What a round has drawn, as the host reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.rounds.shape import RoundShape
from langchain_eft.engine.rounds.staging import Fields, PackedTensors
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
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


def output_fields(shape: RoundShape) -> Fields:
    """What the device tells the host each round."""
    rows, positions = shape.rows, shape.positions
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "draft_tokens": ((rows, shape.num_draft_tokens), torch.int64),
        "count": ((rows,), torch.int64),  # draft tokens made
        "tokens": ((rows, positions), torch.int64),
        "accepted": ((rows,), torch.int64),
        "undrawn": ((rows,), torch.bool),  # rows whose log p is not finite, so that no token could be drawn
        "draft_samples": ((rows, positions), torch.int64),  # -1 where none was drawn
    }
    if shape.logprobs:
        top = (rows, positions, MOST_TOP_LOGPROBS)
        fields |= {
            "logprob": ((rows, positions), torch.float32),
            "top_tokens": (top, torch.int64),
            "top_logprobs": (top, torch.float32),
        }
    return fields


def read_outcomes(
    content: PackedTensors, shape: RoundShape, drafts: Mapping[RequestState, Draft]
) -> dict[RequestState, RowOutcome]:
    """What `output_fields` say of each row that has drawn something and not ended since the launch.

    Args:
        content: The host's block.
        shape: The round's.
        drafts: The rows, and how they draft.
    """
    names = ("draft_tokens", "count", "tokens", "accepted", "undrawn", "draft_samples")
    numbers = {name: content[name].tolist() for name in names}
    outcomes = {}
    for row, (state, draft) in enumerate(drafts.items()):
        if state.ended or numbers["undrawn"][row]:
            continue
        draft_tokens = _until_end(state, numbers["draft_tokens"][row][: numbers["count"][row]])
        accepted = min(numbers["accepted"][row], len(draft_tokens))
        outcomes[state] = RowOutcome(
            tokens=numbers["tokens"][row][: accepted + 1],
            draft=draft,
            draft_tokens=draft_tokens,
            draft_samples=[
                sample if shape.draft_samples and sample >= 0 else None
                for sample in numbers["draft_samples"][row][: accepted + 1]
            ],
            logprobs=_logprobs(content, row, accepted + 1, state) if shape.logprobs else [],
        )
    return outcomes


def read_undrawn(content: PackedTensors, drafts: Mapping[RequestState, Draft]) -> set[RequestState]:
    """The rows that have not ended and for which no token could be drawn."""
    pairs = zip(drafts, content["undrawn"].tolist(), strict=False)
    return {state for state, undrawn in pairs if undrawn and not state.ended}


def _logprobs(content: PackedTensors, row: int, count: int, state: RequestState) -> list[TokenLogprobs]:
    """The log-probabilities that a request asks for, at its first `count` positions."""
    if state.request.top_logprobs is None:
        return []
    top = min(state.request.top_logprobs, MOST_TOP_LOGPROBS)
    logprobs = []
    for step in range(count):
        tokens = content["top_tokens"][row, step, :top].tolist()
        values = content["top_logprobs"][row, step, :top].tolist()
        pairs = tuple(zip(tokens, values, strict=True))
        logprobs.append(TokenLogprobs(float(content["logprob"][row, step]), pairs))
    return logprobs


def _until_end(state: RequestState, tokens: list[int]) -> list[int]:
    """Draft tokens up to the first that ends the answer."""
    ends = (i + 1 for i, token in enumerate(tokens) if state.ends_with(token))
    return tokens[: next(ends, len(tokens))]
