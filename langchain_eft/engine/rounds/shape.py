"""The shape of a static round, and the tensors that go in and out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from langchain_eft.engine.decoding.sampling import Filters
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.rounds.staging import Fields

_INT, _SMALL, _REAL, _BOOL = torch.int64, torch.int32, torch.float32, torch.bool


@dataclass(frozen=True, order=True)
class TermSlot:
    """A place for one term of each row.

    Attributes:
        model: The model that runs it.
        role: Whether the term drafts, besides verifying, or only verifies.
    """

    model: int
    role: Literal["drafts", "verifies"]


@dataclass(frozen=True)
class RoundShape:
    """Everything about a round that is not in a tensor: the key of its recording.

    Attributes:
        rows: B, rows with padding.
        num_draft_tokens: K, most draft tokens of a row.
        drafting: Whether small models guess; else all guesses are given.
        context: Bound on the length of every context, guesses included.
        slots: S places for terms, sorted.
        filters: Which sampling filters matter.
        draft_samples: Whether samples of q are wanted.
        conservative: Whether some row up-scales some tokens only.
        nucleus: Whether some row up-scales inside a nucleus only.
        grammar: Whether some row's tokens are restricted.
        penalties: Whether some row has penalties or biases.
        biases: Most biased tokens of a row.
        logprobs: Whether some row reports log-probabilities.
    """

    rows: int
    num_draft_tokens: int
    drafting: bool
    context: int
    slots: tuple[TermSlot, ...]
    filters: Filters
    draft_samples: bool
    conservative: bool
    nucleus: bool
    grammar: bool
    penalties: bool
    biases: int
    logprobs: bool


def input_fields(shape: RoundShape, vocabulary: int, block_size: int) -> Fields:
    """What the host tells the device each round.

    B rows, K guesses, S slots of which the D that draft have `draft` coefficients, V token ids. All zeros is
    a round without rows.

    Args:
        shape: The round's.
        vocabulary: V.
        block_size: Positions per block.
    """
    rows, guesses, slots = shape.rows, shape.num_draft_tokens, len(shape.slots)
    places = guesses + 1
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        # Row of the last round that this one goes on with, plus 1; 0 where `last` and `written` hold.
        "source": ((rows,), _INT),
        "last": ((rows,), _INT),
        "num_output_tokens": ((rows,), _INT),  # tokens of the answer, `last` included
        "limit": ((rows,), _INT),  # of `written`
        "prompt": ((rows,), _INT),  # tokens before the answer, which the random numbers count too
        "count": ((rows,), _INT),  # guesses wanted
        "given": ((rows, guesses), _INT),  # guesses plus 1; 0 where the small models guess
        "used": ((slots, rows), _BOOL),
        "start": ((slots, rows), _INT),  # tokens before the answer in the term's context
        "variant": ((slots, rows), _INT),
        "table": ((slots, rows, -(-shape.context // block_size)), _SMALL),
        "target": ((slots, rows, places), _REAL),
        "draft": ((slots, rows, places), _REAL),
        "seed": ((rows,), _INT),
        "greedy": ((rows,), _BOOL),
        "temperature": ((rows,), _REAL),
        "top_k": ((rows,), _INT),
        "top_p": ((rows,), _REAL),
        "min_p": ((rows,), _REAL),
        "base": ((rows,), _INT),  # slot of L
    }
    if shape.conservative:
        fields |= {
            "conservative": ((rows,), _BOOL),
            "small": ((slots, rows, places), _REAL),
            "upscale": ((slots, rows, places), _REAL),
            "upscale_top_p": ((rows,), _REAL),
            "unscaled": ((rows,), _BOOL),
        }
    if shape.grammar:
        fields["allowed"] = ((rows, places, -(-vocabulary // 32)), _SMALL)
    if shape.penalties:
        fields |= {
            "penalized": ((rows,), _BOOL),
            "history": ((rows, shape.context), _INT),  # prompt and answer
            "repetition": ((rows,), _REAL),
            "frequency": ((rows,), _REAL),
            "presence": ((rows,), _REAL),
            "biased": ((rows, shape.biases), _INT),
            "bias": ((rows, shape.biases), _REAL),
        }
    return fields


def output_fields(shape: RoundShape) -> Fields:
    """What the device tells the host each round."""
    rows, guesses = shape.rows, shape.num_draft_tokens
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "draft_tokens": ((rows, guesses), _INT),
        "count": ((rows,), _INT),  # guesses made
        "tokens": ((rows, guesses + 1), _INT),
        "accepted": ((rows,), _INT),
        "draft_samples": ((rows, guesses + 1), _INT),  # samples of q, -1 where there is none
    }
    if shape.logprobs:
        top = (rows, guesses + 1, MOST_TOP_LOGPROBS)
        fields |= {
            "logprob": ((rows, guesses + 1), _REAL),
            "top_tokens": (top, _INT),
            "top_logprobs": (top, _REAL),
        }
    return fields
