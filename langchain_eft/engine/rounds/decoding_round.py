"""One round of speculative decoding over tensors: draft, verify, accept.

The rules of decoding stand here once: how logits become p and q, which tokens are allowed, how penalties
count draft tokens, and which draft tokens are accepted. Two kinds of rounds differ in how the models run over
a row's tokens: `StaticRound` pads rows, so that CUDA graphs can record it, and `PackedRound` runs exactly the
tokens that there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula import combine, conservative
from langchain_eft.engine.decoding.gates import GateNumbers, add_gated, measures, open_gates
from langchain_eft.engine.decoding.penalties import Penalties, penalize
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw, probabilities
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.rounds.progress import RowProgress, accept, begin
from langchain_eft.engine.rounds.round_state import Positions, RoundState
from langchain_eft.engine.rounds.shape import RoundShape
from langchain_eft.engine.rounds.staging import DeviceToHost, Fields, HostToDevice
from langchain_eft.engine.rounds.transfer import input_fields, output_fields


class DecodingRound(ABC):
    """The rounds of one shape.

    B rows, K draft tokens, S slots for terms of which D draft, V token ids, R positions at which tokens are
    drawn (at most B * (K + 1)), N computed logits.

    Attributes:
        shape: The shape.
        inputs: What the host tells the device (`input_fields`).
        outputs: What the device tells the host (`output_fields`).
        draft_tokens: [B, K] int64.
        vocabulary_size: V.
    """

    def __init__(self, shape: RoundShape, state: RoundState, more_inputs: Fields | None = None) -> None:
        self.shape = shape
        self._state = state
        self._vocabulary = state.family.vocabulary
        self.vocabulary_size = len(self._vocabulary)
        device = state.device
        fields = {**input_fields(shape, self.vocabulary_size), **(more_inputs or {})}
        self.inputs, self.outputs = HostToDevice(fields, device), DeviceToHost(output_fields(shape), device)
        self._in, self._out = self.inputs.device, self.outputs.device
        self.draft_tokens = torch.zeros(shape.rows, shape.num_draft_tokens, dtype=torch.int64, device=device)
        self.draft_slots = [i for i, slot in enumerate(shape.slots) if slot.role == "drafts"]
        self._draft_slots = torch.tensor(self.draft_slots, dtype=torch.int64, device=device)
        self._rows = torch.arange(shape.rows, device=device)
        self._steps = torch.arange(shape.positions, device=device)
        self._bits = torch.arange(32, dtype=torch.int32, device=device)
        self._positions = Positions(shape)

    # The algorithm

    @torch.inference_mode()
    def draft(self) -> None:
        """Draft with the small models, one pass for each token; rows with given draft tokens follow those."""
        progress, given = self._begin(), self._in["given"]
        is_given, given_tokens = given > 0, given - 1
        positions = progress.num_tokens + self._steps[:, None]
        weights = self._in["draft"].index_select(0, self._draft_slots)
        penalties = self._penalties(progress) if self.shape.penalties else None
        token = progress.last
        for step in range(self.shape.num_draft_tokens):
            logits, index = self._run_draft(step, token, progress)
            q = self._allow_drafted(self._combine(logits, index, weights[:, :, step].t()), step)
            if penalties is not None:
                q = torch.where(self._in["penalized"][:, None], penalize(q, penalties), q)
            if self.shape.biases:
                q = q.scatter_add(1, self._in["biased"], self._in["bias"])
            drafted = self._draw_drafted(q, self._sampling(positions[step], each_row=True))
            token = torch.where(is_given[:, step], given_tokens[:, step], drafted)
            self.draft_tokens[:, step] = token
            if self._stop_drafting(step, token):
                break
            if penalties is not None:
                penalties = _counted(penalties, token)

    @torch.inference_mode()
    def verify(self) -> None:
        """Run what every term has still to run, draw from p at every position, and accept."""
        progress, shape = self._begin(), self.shape
        if not shape.drafting:
            self._take_given()
        logits, index = self._run_verify(progress)
        self._positions = Positions(shape, self._live_positions(progress))
        logp = self._target(logits, index)
        positions = (progress.num_tokens[:, None] + self._steps).flatten()
        sampling = self._sampling(self._positions.select(positions), each_row=False)
        allowed = self._penalized(self._allowed(logp), progress)
        # The largest value is NaN if any is. It is infinite if no token has a probability, or one overflows.
        finite = allowed.amax(-1).isfinite()
        if shape.draft_samples:
            drafts = self._positions.repeat(self._in["used"][self._draft_slots].any(0))
            samples = self._draw_samples(logits, index, allowed, drafts, sampling, progress)
            tokens = self._accept_or_resample(allowed, samples, sampling)
            self._report_samples(
                self._positions.by_row(torch.where(drafts, samples.tokens, -1), -1), progress
            )
        else:
            tokens = draw(allowed, sampling).tokens
        accept(
            self.draft_tokens,
            self._positions.by_row(tokens, 0),
            self._positions.by_row(finite, 0),
            progress,
            self._out,
            self._state.last,
            self._state.num_output_tokens,
        )
        if shape.logprobs:
            self._report_logprobs(logp.log_softmax(-1), tokens)

    # What the two kinds of rounds do in their own ways

    @abstractmethod
    def _run_draft(self, step: int, tokens: Tensor, progress: RowProgress) -> tuple[Tensor, Tensor]:
        """Run [B] tokens through the terms that draft.

        Returns:
            [N, V] logits, and [B, D] int64, which of them belong to a row and term.
        """

    @abstractmethod
    def _run_verify(self, progress: RowProgress) -> tuple[Tensor, Tensor]:
        """Run all that has not run yet.

        Returns:
            [N, V] logits of the round, and [S, B, K + 1] int64, which of them belong to a slot, row and step.
        """

    def _draw_drafted(self, q: Tensor, sampling: Sampling) -> Tensor:
        """[B] samples of [B, V] log q."""
        return draw(q, sampling).tokens

    def _allow_drafted(self, logits: Tensor, step: int) -> Tensor:  # noqa: ARG002  (packed rounds use it)
        """[B, V] logits of draft tokens, restricted by grammars where the host may look at each token."""
        return logits

    def _stop_drafting(self, step: int, tokens: Tensor) -> bool:  # noqa: ARG002  (packed rounds use them)
        """Whether no row needs more draft tokens, where the host may look at each token."""
        return False

    def _live_positions(self, progress: RowProgress) -> Tensor | None:  # noqa: ARG002  (packed rounds use it)
        """[R] int64, the positions among B * (K + 1) at which tokens are drawn; None for all of them."""
        return None

    def _draw_samples(
        self,
        logits: Tensor,
        index: Tensor,
        target: Tensor,
        drafts: Tensor,
        sampling: Sampling,
        progress: RowProgress,
    ) -> Draw:
        """Samples of q at all R positions, and of p where a row has no q.

        Args:
            logits: [N, V] logits of the round.
            index: [S, B, K + 1] int64, which of them belong to a slot, row and step.
            target: [R, V] log p up to a constant.
            drafts: [R] bool, whether the row has a q.
            sampling: R rows.
            progress: Of the rows.
        """
        q = self._penalized(self._allowed(self._draft_target(logits, index)), progress)
        return draw(where_finite(drafts, q, target), sampling)

    def _accept_or_resample(self, target: Tensor, samples: Draw, sampling: Sampling) -> Tensor:
        """[R] samples of p, [R, V] up to a constant, that equal `samples` wherever the rule keeps them."""
        if samples.probs is None:  # every row is greedy
            return draw(target, sampling).tokens
        p = probabilities(target, sampling)
        return accept_or_resample(p, samples.probs, samples.tokens, sampling.seeds, sampling.positions)

    # From logits to p and q

    def _combine(self, logits: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """[R, V] weighted sums of logits, -inf for ids that are not tokens of all models."""
        return combine(logits, index, weights, self._vocabulary)

    def _target(self, logits: Tensor, index: Tensor) -> Tensor:
        """[R, V] log p up to a constant."""
        inputs, family, index = self._in, self._state.family, self._positions.by_position(index)
        opened = self._opened(logits, index) if self.shape.gates else None
        logp = self._combine(logits, index, self._weights("target", opened))
        if not self.shape.conservative:
            return logp
        normalizers = logits.masked_fill(~self._vocabulary, float("-inf")).logsumexp(-1, keepdim=True)
        unscaled = None
        if family.unscaled is not None:
            unscaled = self._positions.repeat(inputs["unscaled"])[:, None] & family.unscaled
        restricted = conservative(
            self._combine(logits, index, self._weights("small", opened)),
            self._combine(logits - normalizers, index, self._positions.by_position(inputs["upscale"])),
            self._positions.repeat(inputs["upscale_top_p"]) if self.shape.nucleus else None,
            unscaled,
        )
        return torch.where(self._positions.repeat(inputs["conservative"])[:, None], restricted, logp)

    def _weights(self, name: str, opened: Tensor | None) -> Tensor:
        """[R, S] coefficients of a sum, with what [R, G] open gates add to them."""
        weights = self._positions.by_position(self._in[name])
        if opened is None:
            return weights
        return add_gated(weights, opened, self._positions.repeat(self._in["gated"]))

    def _opened(self, logits: Tensor, index: Tensor) -> Tensor:
        """[R, G] which gates are open, by the base's logits at [R, S] entries."""
        inputs, repeat = self._in, self._positions.repeat
        base = logits[index.gather(1, repeat(inputs["large"])[:, None])[:, 0]]
        kind, threshold, below = (repeat(inputs[f"gate_{name}"]) for name in GateNumbers._fields)
        return open_gates(measures(base, self._vocabulary), kind, threshold, below)

    def _draft_target(self, logits: Tensor, index: Tensor) -> Tensor:
        """[R, V] log q up to a constant."""
        entries, weights = (
            self._positions.by_position(x.index_select(0, self._draft_slots))
            for x in (index, self._in["draft"])
        )
        return self._combine(logits, entries, weights)

    def _allowed(self, logits: Tensor) -> Tensor:
        """Leave only tokens that the rows' grammars allow, [R, V]."""
        if not self.shape.grammar:
            return logits
        packed = self._positions.select(self._in["allowed"].flatten(0, 1))
        allowed = ((packed[..., None] >> self._bits) & 1).flatten(1)[:, : self.vocabulary_size]
        return logits.masked_fill(allowed == 0, float("-inf"))

    def _penalized(self, logits: Tensor, progress: RowProgress) -> Tensor:
        """Apply the rows' penalties and then their biases, [R, V]."""
        if self.shape.penalties:
            logits = self._with_penalties(logits, progress)
        if self.shape.biases:
            biased, bias = (self._positions.repeat(self._in[name]) for name in ("biased", "bias"))
            logits = logits.scatter_add(1, biased, bias)
        return logits

    def _with_penalties(self, logits: Tensor, progress: RowProgress) -> Tensor:
        """Apply the rows' penalties, which count the draft tokens before a position too, [R, V]."""
        penalties = self._penalties(progress)
        steps = [penalties]
        for step in range(self.shape.num_draft_tokens):
            steps.append(_counted(steps[-1], self.draft_tokens[:, step]))
        counts, seen = (
            torch.stack([getattr(s, name) for s in steps], 1).flatten(0, 1) for name in ("counts", "seen")
        )
        of_positions = Penalties(
            counts=self._positions.select(counts),
            seen=self._positions.select(seen),
            repetition=self._positions.repeat(penalties.repetition),
            frequency=self._positions.repeat(penalties.frequency),
            presence=self._positions.repeat(penalties.presence),
        )
        penalized = self._positions.repeat(self._in["penalized"])
        return torch.where(penalized[:, None], penalize(logits, of_positions), logits)

    def _penalties(self, progress: RowProgress) -> Penalties:
        """Penalties at the position after the last known token of every row."""
        inputs, history = self._in, self._in["history"]
        index = torch.arange(self.shape.max_context, device=history.device)
        answer = index >= inputs["prompt"][:, None]
        written = index < progress.num_tokens[:, None]
        zeros = torch.zeros(self.shape.rows, self.vocabulary_size, device=history.device)
        counts = zeros.scatter_add(1, history, (written & answer).float())
        return Penalties(
            counts=counts,
            seen=counts + zeros.scatter_add(1, history, (written & ~answer).float()) > 0,
            repetition=inputs["repetition"],
            frequency=inputs["frequency"],
            presence=inputs["presence"],
        )

    def _sampling(self, positions: Tensor, *, each_row: bool) -> Sampling:
        """Sampling parameters of every row, [B], or of every position, [R].

        Args:
            positions: [B] or [R] int64, number of tokens before the one that is drawn.
            each_row: Which of the two.
        """
        filters = self.shape.filters

        def column(name: str, *, needed: bool) -> Tensor:
            values = self._in[name]
            if not needed:
                return values[:1].expand(len(positions))  # nobody reads it
            return values if each_row else self._positions.repeat(values)

        return Sampling(
            seeds=column("seed", needed=filters.sampled),
            positions=positions,
            greedy=column("greedy", needed=filters.sampled and filters.greedy),
            temperature=column("temperature", needed=filters.sampled),
            top_k=column("top_k", needed=filters.top_k > 0),
            top_p=column("top_p", needed=filters.top_p),
            min_p=column("min_p", needed=filters.min_p),
            filters=filters,
        )

    # Before and after

    def _begin(self) -> RowProgress:
        """Where the rows stand."""
        return begin(self._in, self._state.last, self._state.num_output_tokens)

    def _take_given(self) -> None:
        """Use the draft tokens that the host knows."""
        self.draft_tokens.copy_((self._in["given"] - 1).clamp(min=0))

    def _report_samples(self, samples: Tensor, progress: RowProgress) -> None:
        """Report [B, K + 1] samples of q: the draft token itself where a model drafted one."""
        if self.shape.drafting:
            drafted = (self._in["given"] == 0) & (self._steps[:-1] < progress.count[:, None])
            samples[:, :-1] = torch.where(drafted, self.draft_tokens, samples[:, :-1])
        self._out["draft_samples"].copy_(samples)

    def _report_logprobs(self, logprobs: Tensor, tokens: Tensor) -> None:
        """Report [R, V] log-probabilities of the [R] tokens drawn and of the most probable ones."""
        top = logprobs.topk(min(MOST_TOP_LOGPROBS, self.vocabulary_size))
        live = slice(None) if self._positions.live is None else self._positions.live
        self._out["logprob"].flatten()[live] = logprobs.gather(1, tokens[:, None])[:, 0]
        for name, values in (("top_tokens", top.indices), ("top_logprobs", top.values)):
            self._out[name].flatten(0, 1)[live, : values.shape[1]] = values


def _counted(penalties: Penalties, tokens: Tensor) -> Penalties:
    """Penalties after one more token of the answer, [B]."""
    counts = penalties.counts.scatter_add(1, tokens[:, None], torch.ones_like(penalties.counts[:, :1]))
    return replace(penalties, counts=counts, seen=penalties.seen | (counts > 0))


def where_finite(drafts: Tensor, q: Tensor, p: Tensor) -> Tensor:
    """[R, V] log q where a row has a finite one, else log p, which may do without the term that is NaN."""
    return torch.where((drafts & q.amax(-1).isfinite())[:, None], q, p)
