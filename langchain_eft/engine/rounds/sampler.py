"""From p and q to tokens: grammars, penalties, filters, and the draw, at R positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula_table import Columns
from langchain_eft.engine.decoding.penalties import Penalties, penalize
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw, probabilities
from langchain_eft.engine.rounds.shape import RoundShape
from langchain_eft.engine.rounds.staging import PackedTensors


class Wanted(NamedTuple):
    """R positions at which a distribution is wanted.

    Attributes:
        row: [R] int64, row of the round.
        step: [R] int64, draft tokens before it.
        position: [R] int64, tokens of main prompt and answer before it.
        entry: [R, T] int64, which logits each of the row's terms has there; any others where the coefficient
            is 0.
        columns: The rows of the table.
        coefficients: [R, sums, T] float32, of the row's terms in the `SUMS`.
    """

    row: Tensor
    step: Tensor
    position: Tensor
    entry: Tensor
    columns: Columns
    coefficients: Tensor


class Sampler:
    """Draws the tokens of rounds of one shape.

    B rows, K draft tokens, V token ids.

    Args:
        shape: The shape.
        vocabulary_size: V.
        inputs: What the host tells the device (`inputs.input_fields`).
        draft_tokens: [B, K] int64.
    """

    def __init__(
        self, shape: RoundShape, vocabulary_size: int, inputs: PackedTensors, draft_tokens: Tensor
    ) -> None:
        self._shape, self._in, self._draft_tokens = shape, inputs, draft_tokens
        self._bits = torch.arange(32, dtype=torch.int32, device=draft_tokens.device)
        self._size = vocabulary_size

    # Which tokens are allowed, and what changes their probabilities

    def allowed(self, wanted: Wanted, logits: Tensor) -> Tensor:
        """[R, V] logits of the tokens that grammars allow, by what the host has said of each position."""
        if not self._shape.grammar:
            return logits
        packed = self._in["allowed"][wanted.row, wanted.step]
        allowed = ((packed[..., None] >> self._bits) & 1).flatten(1)[:, : self._size]
        return logits.masked_fill(allowed == 0, float("-inf"))

    def penalized(
        self, wanted: Wanted, logits: Tensor, history: tuple[Tensor, Tensor] | None, most_steps: int
    ) -> Tensor:
        """[R, V] with penalties, and then biases.

        Args:
            wanted: The positions.
            logits: [R, V] log-probabilities up to a constant.
            history: `history` of the rows, if some row has penalties.
            most_steps: Most draft tokens before a position.
        """
        if history is not None:
            penalties = self._penalties(wanted, *history, most_steps)
            penalized = wanted.columns["penalized"] != 0
            logits = torch.where(penalized[:, None], penalize(logits, penalties), logits)
        if self._shape.biases:
            biased, bias = (self._in[name][wanted.row] for name in ("biased", "bias"))
            logits = logits.scatter_add(1, biased, bias)
        return logits

    def history(self, columns: Columns, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, V] how often each token occurs in the answer, and whether it occurs in prompt or answer."""
        history = self._in["history"]
        index = torch.arange(history.shape[1], device=history.device)
        answer, written = index >= columns["prompt"][:, None], index < num_tokens[:, None]
        zeros = torch.zeros(len(history), self._size, device=history.device)
        counts = zeros.scatter_add(1, history, (written & answer).float())
        return counts, counts + zeros.scatter_add(1, history, (written & ~answer).float()) > 0

    def _penalties(self, wanted: Wanted, counts: Tensor, seen: Tensor, most_steps: int) -> Penalties:
        """[R, V] penalties, which count the draft tokens before a position too."""
        counts, columns = counts[wanted.row], wanted.columns
        for step in range(most_steps):
            token = self._draft_tokens[wanted.row, step : step + 1]
            counts = counts.scatter_add(1, token, (step < wanted.step).float()[:, None])
        return Penalties(
            counts=counts,
            seen=seen[wanted.row] | (counts > 0),
            repetition=columns["repetition"],
            frequency=columns["frequency"],
            presence=columns["presence"],
        )

    # The draw

    def sampling(self, wanted: Wanted) -> Sampling:
        """Sampling parameters at R positions."""
        filters, columns = self._shape.filters, wanted.columns
        return Sampling(
            seeds=columns["seed"],
            positions=wanted.position,
            greedy=columns["greedy"] != 0 if filters.sampled and filters.greedy else columns["greedy"],
            temperature=columns["temperature"],
            top_k=columns["top_k"],
            top_p=columns["top_p"],
            min_p=columns["min_p"],
            filters=filters,
        )

    def accept_or_resample(self, logp: Tensor, samples: Draw, sampling: Sampling) -> Tensor:
        """[R] samples of [R, V] p, that equal those of q wherever the rule keeps them."""
        if samples.probs is None:  # every row is greedy
            return draw(logp, sampling).tokens
        p = probabilities(logp, sampling)
        return accept_or_resample(p, samples.probs, samples.tokens, sampling.seeds, sampling.positions)
