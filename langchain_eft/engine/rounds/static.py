"""One decoding round as a program over tensors in fixed places: draft, verify, accept.

The algorithm is that of `eager`, for batches in which every row has one uncomputed token, its last one. No
value is read back to the host, and no value decides which operations run. So the two halves of a round can
be recorded as CUDA graphs; on a CPU they are called as functions. `RoundShape` decides which operations run,
and it is the key of a recording.

Rows are padded to the shape. Rows that do not exist, draft tokens that a row does not have, and terms that a
row's mixture lacks become padding: their keys and values are not stored, and their logits are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from langchain_eft.engine.attention.batch import ForwardBatch, has_kernel
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.decoding.formula import conservative
from langchain_eft.engine.decoding.penalties import Penalties, penalize
from langchain_eft.engine.decoding.sampling import Draw, Sampling
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.models.causal_model import joined, project
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.rounds.cuda_graphs import Streams
from langchain_eft.engine.rounds.layout import TokenLayout
from langchain_eft.engine.rounds.ops import RoundOps, round_ops
from langchain_eft.engine.rounds.shape import RoundShape, TermSlot, input_fields, output_fields
from langchain_eft.engine.rounds.staging import DeviceToHost, HostToDevice


class RoundState:
    """What all rounds share on the device.

    Attributes:
        family: The models.
        pools: Their KV memory.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        gathers: Whether attention gathers contexts, where the Triton kernel does not run.
        ops: What rounds do besides running models, by kernels where they run.
        streams: For models that run side by side.
        last: [rows] int64, last token of each row of the last round.
        num_output_tokens: [rows] int64, tokens of its answer.
    """

    def __init__(
        self, family: ModelFamily, pools: Sequence[KVPool], num_blocks: int, block_size: int, rows: int
    ) -> None:
        self.family = family
        self.pools = pools
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = family.vocabulary.device
        kernels = has_kernel(self.device)
        self.gathers = not kernels
        self.ops = round_ops(kernels=kernels)
        self.streams = Streams(self.device, len(family.models))
        self.last, self.num_output_tokens = torch.zeros(2, rows, dtype=torch.int64, device=self.device)
        self._drafted = torch.zeros(0, device=self.device)

    def drafted(self, *shape: int) -> Tensor:
        """float32 memory for the logits of a round's drafts; rounds follow each other, so all share it."""
        size = torch.Size(shape).numel()
        if self._drafted.numel() < size:
            self._drafted = torch.zeros(size, device=self.device)
        return self._drafted[:size].view(shape)


@dataclass(frozen=True)
class _Rows:
    """Where each row stands.

    Attributes:
        last: [B] int64, the token that is known but not computed.
        num_output_tokens: [B] int64, tokens of the answer.
        number: [B] int64, tokens of prompt and answer.
        first: [S, B] int64, position of the last token in what each term reads.
        alive: [B] bool.
        count: [B] int64, guesses that are made.
    """

    last: Tensor
    num_output_tokens: Tensor
    number: Tensor
    first: Tensor
    alive: Tensor
    count: Tensor


@dataclass(frozen=True)
class _Part:
    """Tokens that some slots of one model run.

    Attributes:
        slots: Which.
        tokens: [B, n].
        offset: [B] int64, where they begin, counted from the last known token.
        queries: [B] int64 or bool, how many of them are real.
    """

    slots: slice
    tokens: Tensor
    offset: Tensor
    queries: Tensor


class DecodeRound:
    """The rounds of one shape.

    Attributes:
        inbox: What the host tells the device (`input_fields`).
        outbox: What the device tells the host (`output_fields`).
        guesses: [B, K] int64.
    """

    def __init__(self, shape: RoundShape, state: RoundState) -> None:
        self.shape = shape
        self._state = state
        self._ops, self._vocabulary = state.ops, state.family.vocabulary
        self._size = len(self._vocabulary)
        device = state.device
        self.inbox = HostToDevice(input_fields(shape, self._size, state.block_size), device)
        self.outbox = DeviceToHost(output_fields(shape), device)
        self.draft_tokens = torch.zeros(shape.rows, shape.num_draft_tokens, dtype=torch.int64, device=device)
        self._in, self._out = self.inbox.device, self.outbox.device
        draft_slots = [i for i, slot in enumerate(shape.slots) if slot.role == "drafts"]
        self._draft_slots = torch.tensor(draft_slots, dtype=torch.int64, device=device)
        self._rows = torch.arange(shape.rows, device=device)
        self._steps = torch.arange(shape.num_draft_tokens + 1, device=device)
        self._bits = torch.arange(32, dtype=torch.int32, device=device)
        if shape.drafting:
            self._drafted = state.drafted(shape.num_draft_tokens, len(draft_slots), shape.rows, self._size)

    @torch.inference_mode()
    def draft(self) -> None:
        """Guess with the small models, one pass for each token; rows with given guesses follow those."""
        now, given = self._begin(), self._in["given"]
        weights = self._in["draft"].index_select(0, self._draft_slots)
        index = (
            torch.arange(len(self._draft_slots), device=given.device) * self.shape.rows + self._rows[:, None]
        )
        follows, given_tokens = given > 0, given - 1
        penalties = self._penalties(now) if self.shape.penalties else None
        token = now.last
        runs = [slots for slots in _runs(self.shape.slots) if self.shape.slots[slots.start].role == "drafts"]
        for step in range(self.shape.num_draft_tokens):
            queries = step < now.count
            offset = self._steps[step].expand(self.shape.rows)
            logits = self._run([[_Part(slots, token[:, None], offset, queries)] for slots in runs], now)
            self._drafted[step] = logits.view(len(self._draft_slots), self.shape.rows, -1)
            q = self._combine(logits, index, weights[:, :, step].t())
            if penalties is not None:
                q = torch.where(self._in["penalized"][:, None], penalize(q, penalties), q)
            drafted = self._ops.draw(q, self._sampling(now, self._steps[step : step + 1])).tokens
            token = torch.where(follows[:, step], given_tokens[:, step], drafted)
            self.draft_tokens[:, step] = token
            if penalties is not None:
                penalties = _counted(penalties, token)

    @torch.inference_mode()
    def verify(self) -> None:
        """Run what every term has still to run, draw from p at every position, and accept."""
        now, shape = self._begin(), self.shape
        if not shape.drafting:
            self.draft_tokens.copy_((self._in["given"] - 1).clamp(min=0))
        logits, index = self._logits(now)
        logp = self._target(logits, index)
        p = self._penalized(self._allowed(logp), now)
        sampling = self._sampling(now, self._steps)
        draw = self._ops.draw
        target, tokens = draw(p, sampling), None
        if shape.draft_samples:
            weights = _flat(self._in["draft"].index_select(0, self._draft_slots))
            q = self._combine(logits, _flat(index.index_select(0, self._draft_slots)), weights)
            drafts = self._used(self._draft_slots).any(0).repeat_interleave(shape.num_draft_tokens + 1)
            sampled = draw(self._penalized(self._allowed(q), now), sampling)
            tokens = _accepted_or_resampled(target, sampled, drafts, sampling, self._ops)
            self._report_samples(torch.where(drafts, sampled.tokens, -1).view(shape.rows, -1), now)
        tokens = target.tokens if tokens is None else tokens
        self._accept(tokens.view(shape.rows, -1), now)
        if shape.logprobs:
            self._report(logp.log_softmax(-1), tokens)

    def _begin(self) -> _Rows:
        """Rows go on from where the last round left them, or from what the host knows."""
        source = self._in["source"]
        earlier = (source - 1).clamp(min=0)
        last = torch.where(source > 0, self._state.last[earlier], self._in["last"])
        num_output_tokens = torch.where(
            source > 0, self._state.num_output_tokens[earlier], self._in["num_output_tokens"]
        )
        remaining = self._in["limit"] - num_output_tokens
        return _Rows(
            last,
            num_output_tokens,
            self._in["prompt"] + num_output_tokens,
            self._in["start"] + (num_output_tokens - 1),
            remaining > 0,
            torch.minimum(self._in["count"], remaining - 1).clamp(min=0),
        )

    def _combine(self, logits: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """[R, V] weighted sums of logits, -inf for what is no token of all models."""
        return self._ops.combine(logits, index, weights, self._vocabulary)

    def _used(self, slots: slice | Tensor) -> Tensor:
        """[s, B] bool, which rows have a term there."""
        return self._in["used"][slots]

    def _logits(self, now: _Rows) -> tuple[Tensor, Tensor]:
        """All logits of the round.

        Returns:
            [N, V], and [S, B, K + 1] int64, which of them belongs to a slot, row and position.
        """
        shape, rows, positions = self.shape, self.shape.rows, self.shape.num_draft_tokens + 1
        text = torch.cat([now.last[:, None], self.draft_tokens], 1)
        queries = torch.where(now.alive, now.count + 1, 0)
        no_offset = torch.zeros_like(now.count)
        work: list[list[_Part]] = []
        indexes: list[Tensor] = []
        start = shape.num_draft_tokens * len(self._draft_slots) * rows if shape.drafting else 0
        drafted = 0
        for slots in _runs(shape.slots):
            model, several = shape.slots[slots.start].model, slots.stop - slots.start
            term = torch.arange(several, device=text.device)[:, None, None]
            if shape.drafting and shape.slots[slots.start].role == "drafts":
                # Drafting has not run the last draft token, or, without one, the last known token.
                missing = text.gather(1, now.count[:, None])
                part = _Part(slots, missing, now.count, now.alive)
                earlier = ((self._steps * len(self._draft_slots) + drafted + term) * rows) + self._rows[
                    :, None
                ]
                last = start + term * rows + self._rows[:, None]
                indexes.append(torch.where(self._steps < now.count[:, None], earlier, last))
                start, drafted = start + several * rows, drafted + several
            else:
                part = _Part(slots, text, no_offset, queries)
                indexes.append(start + (term * rows + self._rows[:, None]) * positions + self._steps)
                start += several * rows * positions
            if work and shape.slots[work[-1][0].slots.start].model == model:
                work[-1].append(part)
            else:
                work.append([part])
        logits = self._run(work, now)
        if shape.drafting:
            logits = torch.cat([self._drafted.flatten(0, 2), logits])
        index = torch.cat(indexes)
        # Where a row has no term, the base's logits stand in, with coefficient 0.
        base = self._in["base"][None, :, None].expand(1, -1, positions)
        return logits, torch.where(self._used(slice(None))[..., None], index, index.gather(0, base))

    def _run(self, work: Sequence[Sequence[_Part]], now: _Rows) -> Tensor:
        """[N, V] logits of all parts, those of one model together, in order."""
        pieces = [self._forward(parts, now) for parts in work]
        return project(self._state.streams.run(pieces), self._size, self._state.device)

    def _forward(self, parts: Sequence[_Part], now: _Rows) -> Callable[[], tuple[Tensor | None, Tensor]]:
        """One model's pass over the tokens of some of its slots."""
        state = self._state
        index = self.shape.slots[parts[0].slots.start].model
        model = state.family.models[index]
        sizes = [(part.slots.stop - part.slots.start) * part.tokens.numel() for part in parts]

        def run() -> tuple[Tensor | None, Tensor]:
            layouts = [self._lay_out(part, now) for part in parts]
            paged = [
                PagedRows(
                    block_table=self._in["table"][part.slots].flatten(0, 1),
                    starts=None if len(parts) == 1 else _starts(laid.queries, part.tokens.shape[1], start),
                    queries=laid.queries,
                    lengths=laid.lengths,
                    block_size=state.block_size,
                    max_queries=part.tokens.shape[1],
                    max_length=self.shape.context,
                )
                for part, laid, start in zip(parts, layouts, accumulate(sizes[:-1], initial=0), strict=True)
            ]
            batch = ForwardBatch(
                ids=joined([laid.ids for laid in layouts])[None],
                positions=joined([laid.positions for laid in layouts])[None],
                variants=joined([laid.variants for laid in layouts]),
                pool=state.pools[index],
                block_size=state.block_size,
                paged=paged,
                gathers=state.gathers,
            )
            return model.head, model(batch, range(model.variants))

        return run

    def _lay_out(self, part: _Part, now: _Rows) -> TokenLayout:
        slots = part.slots
        return self._ops.lay_out(
            part.tokens,
            now.first[slots],
            part.offset,
            part.queries,
            self._used(slots),
            self._in["variant"][slots],
        )

    def _target(self, logits: Tensor, index: Tensor) -> Tensor:
        """[R, V] log p at all R = B * (K + 1) positions, up to a constant."""
        positions, inputs, family = self.shape.num_draft_tokens + 1, self._in, self._state.family
        logp = self._combine(logits, _flat(index), _flat(inputs["target"]))
        if self.shape.conservative:
            normalizers = logits.masked_fill(~self._vocabulary, float("-inf")).logsumexp(-1, keepdim=True)
            unscaled = None
            if family.unscaled is not None:
                unscaled = inputs["unscaled"].repeat_interleave(positions)[:, None] & family.unscaled
            restricted = conservative(
                self._combine(logits, _flat(index), _flat(inputs["small"])),
                self._combine(logits - normalizers, _flat(index), _flat(inputs["upscale"])),
                inputs["upscale_top_p"].repeat_interleave(positions) if self.shape.nucleus else None,
                unscaled,
            )
            logp = torch.where(inputs["conservative"].repeat_interleave(positions)[:, None], restricted, logp)
        return logp

    def _allowed(self, logits: Tensor) -> Tensor:
        """Leave only tokens that the rows' grammars allow."""
        if not self.shape.grammar:
            return logits
        bits = (self._in["allowed"][..., None] >> self._bits) & 1
        allowed = bits.flatten(2)[..., : self._size].flatten(0, 1)
        return logits.masked_fill(allowed == 0, float("-inf"))

    def _penalized(self, logits: Tensor, now: _Rows) -> Tensor:
        """Apply the penalties of rows that have any, which count the guesses before a position too."""
        if not self.shape.penalties:
            return logits
        penalties = self._penalties(now)
        steps = [penalties]
        for step in range(self.shape.num_draft_tokens):
            steps.append(_counted(steps[-1], self.draft_tokens[:, step]))
        positions = self.shape.num_draft_tokens + 1
        of_positions = Penalties(
            counts=torch.stack([s.counts for s in steps], 1).flatten(0, 1),
            seen=torch.stack([s.seen for s in steps], 1).flatten(0, 1),
            repetition=penalties.repetition.repeat_interleave(positions),
            frequency=penalties.frequency.repeat_interleave(positions),
            presence=penalties.presence.repeat_interleave(positions),
            bias=penalties.bias.repeat_interleave(positions, 0),
        )
        penalized = self._in["penalized"].repeat_interleave(positions)
        return torch.where(penalized[:, None], penalize(logits, of_positions), logits)

    def _penalties(self, now: _Rows) -> Penalties:
        """Those of the position after the last known token, for every row."""
        inputs, history = self._in, self._in["history"]
        at = torch.arange(self.shape.context, device=history.device)
        answer = at >= inputs["prompt"][:, None]
        known = at < now.number[:, None]
        empty = torch.zeros(self.shape.rows, self._size, device=history.device)
        counts = empty.scatter_add(1, history, (known & answer).float())
        return Penalties(
            counts=counts,
            seen=counts + empty.scatter_add(1, history, (known & ~answer).float()) > 0,
            repetition=inputs["repetition"],
            frequency=inputs["frequency"],
            presence=inputs["presence"],
            bias=empty.scatter_add(1, inputs["biased"], inputs["bias"]),
        )

    def _sampling(self, now: _Rows, steps: Tensor) -> Sampling:
        """Parameters of some steps of every row, row by row."""

        def each(name: str) -> Tensor:
            values = self._in[name]
            return values if len(steps) == 1 else values.repeat_interleave(len(steps))

        return Sampling(
            seeds=each("seed"),
            positions=(now.number[:, None] + steps).flatten(),
            greedy=each("greedy"),
            temperature=each("temperature"),
            top_k=each("top_k"),
            top_p=each("top_p"),
            min_p=each("min_p"),
            filters=self.shape.filters,
        )

    def _report_samples(self, drawn: Tensor, now: _Rows) -> None:
        """Report [B, K + 1] samples of q: the draft token itself where a model drafted one."""
        if self.shape.drafting:
            drafted = (self._in["given"] == 0) & (self._steps[:-1] < now.count[:, None])
            drawn[:, :-1] = torch.where(drafted, self.draft_tokens, drawn[:, :-1])
        self._out["draft_samples"].copy_(drawn)

    def _accept(self, tokens: Tensor, now: _Rows) -> None:
        """Accept guesses as far as they are the [B, K + 1] tokens that were drawn, and move on."""
        right = (self.draft_tokens == tokens[:, :-1]) & (self._steps[:-1] < now.count[:, None])
        accepted = right.long().cumprod(1).sum(1)
        self._out["draft_tokens"].copy_(self.draft_tokens)
        self._out["count"].copy_(now.count)
        self._out["tokens"].copy_(tokens)
        self._out["accepted"].copy_(accepted)
        last = tokens.gather(1, accepted[:, None])[:, 0]
        state, rows = self._state, slice(self.shape.rows)
        state.last[rows] = torch.where(now.alive, last, now.last)
        state.num_output_tokens[rows] = torch.where(
            now.alive, now.num_output_tokens + accepted + 1, now.num_output_tokens
        )

    def _report(self, logprobs: Tensor, tokens: Tensor) -> None:
        """Report [R, V] log-probabilities of the [R] tokens drawn and of the most probable ones."""
        top = logprobs.topk(min(MOST_TOP_LOGPROBS, self._size))
        self._out["logprob"].copy_(logprobs.gather(1, tokens[:, None]).view_as(self._out["logprob"]))
        for name, values in (("top_tokens", top.indices), ("top_logprobs", top.values)):
            self._out[name].flatten(0, 1)[:, : values.shape[1]] = values


def _runs(slots: Sequence[TermSlot]) -> list[slice]:
    """Where each kind of slot lies among the sorted slots."""
    starts = [i for i, slot in enumerate(slots) if not i or slots[i - 1] != slot]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(slots)], strict=True)]


def _starts(queries: Tensor, count: int, start: int) -> Tensor:
    """[rows] int32, where each row of `count` positions begins on the packed axis."""
    rows = torch.arange(queries.numel(), dtype=torch.int32, device=queries.device)
    return rows * count + start


def _flat(values: Tensor) -> Tensor:
    """[S, B, K + 1] to [B * (K + 1), S]."""
    return values.flatten(1).t()


def _counted(penalties: Penalties, tokens: Tensor) -> Penalties:
    """Penalties after one more token of the answer, [B]."""
    counts = penalties.counts.scatter_add(1, tokens[:, None], torch.ones_like(penalties.counts[:, :1]))
    return Penalties(
        counts=counts,
        seen=penalties.seen | (counts > 0),
        repetition=penalties.repetition,
        frequency=penalties.frequency,
        presence=penalties.presence,
        bias=penalties.bias,
    )


def _accepted_or_resampled(
    target: Draw, sampled: Draw, drafts: Tensor, sampling: Sampling, ops: RoundOps
) -> Tensor | None:
    """[R] samples of p that follow those of q wherever they may; None where all rows are greedy."""
    if target.probs is None or sampled.probs is None:
        return None
    tokens = ops.accept_or_resample(
        target.probs, sampled.probs, sampled.tokens, sampling.seeds, sampling.positions
    )
    return torch.where(drafts, tokens, target.tokens)
