"""From logits to tokens: the formula, gates, grammars, penalties, filters, and the draw, at R positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula import combine, conservative
from langchain_eft.engine.decoding.gates import add_gated, measures, open_gates
from langchain_eft.engine.decoding.penalties import Penalties, penalize
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw, probabilities
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.rounds.row_table import SUMS, Columns
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

    Attributes:
        num_draft_terms: D, most terms of a row that draft.

    Args:
        shape: The shape.
        terms: T, most terms of a row.
        family: The models.
        inputs: What the host tells the device (`inputs.input_fields`).
        draft_tokens: [B, K] int64.
    """

    def __init__(
        self, shape: RoundShape, terms: int, family: ModelFamily, inputs: PackedTensors, draft_tokens: Tensor
    ) -> None:
        self._shape, self._in, self._draft_tokens = shape, inputs, draft_tokens
        self._vocabulary, self._unscaled = family.vocabulary, family.unscaled
        self._bits = torch.arange(32, dtype=torch.int32, device=draft_tokens.device)
        self._size = len(family.vocabulary)
        self.num_draft_terms = min(sum(slot.role == "drafts" for slot in shape.slots), terms)

    # p and q

    def target(self, wanted: Wanted, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """[R, V] log p up to a constant, and [R, G] which gates are open, of [N, V] logits."""
        opened = self._opened(wanted, logits) if self._shape.gates else None
        logp = self._combine(wanted, logits, "target", opened)
        if not self._shape.conservative:
            return logp, opened
        normalizers = logits.masked_fill(~self._vocabulary, float("-inf")).logsumexp(-1, keepdim=True)
        columns, unscaled = wanted.columns, None
        if self._unscaled is not None:
            unscaled = (columns["unscaled"] != 0)[:, None] & self._unscaled
        restricted = conservative(
            self._combine(wanted, logits, "small", opened),
            self._combine(wanted, logits - normalizers, "upscale"),
            columns["upscale_top_p"] if self._shape.nucleus else None,
            unscaled,
        )
        return torch.where((columns["conservative"] != 0)[:, None], restricted, logp), opened

    def draft_target(self, wanted: Wanted, logits: Tensor) -> Tensor:
        """[R, V] log q up to a constant: a sum of a row's first terms, of [N, V] logits."""
        entry = wanted.entry[:, : self.num_draft_terms]
        return self._combine(wanted._replace(entry=entry), logits, "draft")

    def _combine(self, wanted: Wanted, logits: Tensor, name: str, opened: Tensor | None = None) -> Tensor:
        """[R, V] one of the `SUMS` of logits, -inf for ids that are not tokens of all models."""
        terms = wanted.entry.shape[1]
        weights = wanted.coefficients[:, SUMS.index(name), :terms]
        if opened is not None:
            gated = wanted.columns["gated"][:, : self._shape.gates, :terms]
            weights = add_gated(weights, opened, gated)
        return combine(logits, wanted.entry, weights, self._vocabulary)

    def _opened(self, wanted: Wanted, logits: Tensor) -> Tensor:
        columns, gates = wanted.columns, self._shape.gates
        base = logits[wanted.entry.gather(1, columns["base"][:, None])[:, 0]]
        return open_gates(
            measures(base, self._vocabulary),
            columns["gate_measure"][:, :gates],
            columns["gate_threshold"][:, :gates],
            columns["gate_below"][:, :gates] != 0,
        )

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
