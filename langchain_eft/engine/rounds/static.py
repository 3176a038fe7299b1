"""One decoding round as a program over tensors in fixed places: draft, verify, combine, draw, accept.

The same algorithm as `runner`, for batches in which every row has just its last token pending. Nothing here
reads a value back to the host or lets one decide what runs, so the two halves of a round can be recorded as
CUDA graphs; on a CPU they are simply called. What does decide (`Shape`) is the key of the recording.

Rows are padded to the shape: a row that does not exist, a guess that a row does not want and a term that a
row's mixture does not have are tokens whose keys and values nobody stores and whose logits nobody uses.
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
from langchain_eft.engine.models.causal_model import joined, project
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.rounds.cuda_graphs import Streams
from langchain_eft.engine.rounds.layout import Seats
from langchain_eft.engine.rounds.ops import Operations, operations
from langchain_eft.engine.rounds.shape import TOP_LOGPROBS, Shape, Slot, input_fields, output_fields
from langchain_eft.engine.rounds.staging import Inbox, Outbox


class Device:
    """What all rounds share on the device.

    Attributes:
        family: The models.
        pools: Their KV memory.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        gathers: Whether attention gathers contexts, where the Triton kernel does not run.
        operations: What rounds do besides running models, by kernels where they run.
        streams: For models that run side by side.
        last: [rows] int64, last token of each row of the last round.
        written: [rows] int64, tokens of its answer.
    """

    def __init__(
        self, family: ModelFamily, pools: Sequence[KVPool], num_blocks: int, block_size: int, rows: int
    ) -> None:
        self.family = family
        self.pools = pools
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.place = family.vocabulary.device
        kernels = has_kernel(self.place)
        self.gathers = not kernels
        self.operations = operations(kernels=kernels)
        self.streams = Streams(self.place, len(family.models))
        self.last, self.written = torch.zeros(2, rows, dtype=torch.int64, device=self.place)
        self._drafted = torch.zeros(0, device=self.place)

    def drafted(self, *shape: int) -> Tensor:
        """float32 memory for the logits of a round's drafts; rounds follow each other, so all share it."""
        size = torch.Size(shape).numel()
        if self._drafted.numel() < size:
            self._drafted = torch.zeros(size, device=self.place)
        return self._drafted[:size].view(shape)


@dataclass(frozen=True)
class _Now:
    """Where each row stands.

    Attributes:
        last: [B] int64, the token that is known but not computed.
        written: [B] int64, tokens of the answer.
        number: [B] int64, tokens of prompt and answer.
        first: [S, B] int64, position of the last token in what each term reads.
        alive: [B] bool.
        count: [B] int64, guesses that are made.
    """

    last: Tensor
    written: Tensor
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

    def __init__(self, shape: Shape, device: Device) -> None:
        self.shape = shape
        self._device = device
        self._by, self._vocabulary = device.operations, device.family.vocabulary
        self._size = len(self._vocabulary)
        place = device.place
        self.inbox = Inbox(input_fields(shape, self._size, device.block_size), place)
        self.outbox = Outbox(output_fields(shape), place)
        self.guesses = torch.zeros(shape.rows, shape.guesses, dtype=torch.int64, device=place)
        self._in, self._out = self.inbox.device, self.outbox.device
        drafters = [i for i, slot in enumerate(shape.slots) if slot.role == "drafts"]
        self._drafters = torch.tensor(drafters, dtype=torch.int64, device=place)
        self._rows = torch.arange(shape.rows, device=place)
        self._steps = torch.arange(shape.guesses + 1, device=place)
        self._bits = torch.arange(32, dtype=torch.int32, device=place)
        if shape.drafting:
            self._drafted = device.drafted(shape.guesses, len(drafters), shape.rows, self._size)

    @torch.inference_mode()
    def draft(self) -> None:
        """Guess with the small models, one pass for each token; rows with given guesses follow those."""
        now, given = self._begin(), self._in["given"]
        weights = self._in["draft"].index_select(0, self._drafters)
        index = torch.arange(len(self._drafters), device=given.device) * self.shape.rows + self._rows[:, None]
        follows, told = given > 0, given - 1
        penalties = self._penalties(now) if self.shape.penalties else None
        token = now.last
        runs = [slots for slots in _runs(self.shape.slots) if self.shape.slots[slots.start].role == "drafts"]
        for step in range(self.shape.guesses):
            queries = step < now.count
            offset = self._steps[step].expand(self.shape.rows)
            logits = self._run([[_Part(slots, token[:, None], offset, queries)] for slots in runs], now)
            self._drafted[step] = logits.view(len(self._drafters), self.shape.rows, -1)
            q = self._combine(logits, index, weights[:, :, step].t())
            if penalties is not None:
                q = torch.where(self._in["reshaped"][:, None], penalize(q, penalties), q)
            guess = self._by.draw(q, self._sampling(now, self._steps[step : step + 1])).tokens
            token = torch.where(follows[:, step], told[:, step], guess)
            self.guesses[:, step] = token
            if penalties is not None:
                penalties = _counted(penalties, token)

    @torch.inference_mode()
    def verify(self) -> None:
        """Run what every term has still to run, draw from p at every position, and accept."""
        now, shape = self._begin(), self.shape
        if not shape.drafting:
            self.guesses.copy_((self._in["given"] - 1).clamp(min=0))
        logits, index = self._logits(now)
        logp = self._target(logits, index)
        p = self._reshaped(self._allowed(logp), now)
        sampling = self._sampling(now, self._steps)
        draw = self._by.draw
        target, tokens = draw(p, sampling), None
        if shape.foretold:
            weights = _flat(self._in["draft"].index_select(0, self._drafters))
            q = self._combine(logits, _flat(index.index_select(0, self._drafters)), weights)
            drafts = self._used(self._drafters).any(0).repeat_interleave(shape.guesses + 1)
            foretold = draw(self._reshaped(self._allowed(q), now), sampling)
            tokens = _coupled(target, foretold, drafts, sampling, self._by)
            self._foresee(torch.where(drafts, foretold.tokens, -1).view(shape.rows, -1), now)
        tokens = target.tokens if tokens is None else tokens
        self._accept(tokens.view(shape.rows, -1), now)
        if shape.logprobs:
            self._report(logp.log_softmax(-1), tokens)

    def _begin(self) -> _Now:
        """Rows go on from where the last round left them, or from what the host knows."""
        source = self._in["source"]
        earlier = (source - 1).clamp(min=0)
        last = torch.where(source > 0, self._device.last[earlier], self._in["last"])
        written = torch.where(source > 0, self._device.written[earlier], self._in["written"])
        room = self._in["limit"] - written
        return _Now(
            last,
            written,
            self._in["prompt"] + written,
            self._in["start"] + (written - 1),
            room > 0,
            torch.minimum(self._in["count"], room - 1).clamp(min=0),
        )

    def _combine(self, logits: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """[R, V] weighted sums of logits, -inf for what is no token of all models."""
        return self._by.combine(logits, index, weights, self._vocabulary)

    def _used(self, slots: slice | Tensor) -> Tensor:
        """[s, B] bool, which rows have a term there."""
        return self._in["used"][slots]

    def _logits(self, now: _Now) -> tuple[Tensor, Tensor]:
        """All logits of the round.

        Returns:
            [N, V], and [S, B, K + 1] int64, which of them belongs to a slot, row and position.
        """
        shape, rows, places = self.shape, self.shape.rows, self.shape.guesses + 1
        text = torch.cat([now.last[:, None], self.guesses], 1)
        queries = torch.where(now.alive, now.count + 1, 0)
        nothing = torch.zeros_like(now.count)
        work: list[list[_Part]] = []
        found: list[Tensor] = []
        start = shape.guesses * len(self._drafters) * rows if shape.drafting else 0
        drafted = 0
        for slots in _runs(shape.slots):
            model, several = shape.slots[slots.start].model, slots.stop - slots.start
            own = torch.arange(several, device=text.device)[:, None, None]
            if shape.drafting and shape.slots[slots.start].role == "drafts":
                # Drafting has left out the last guess, or, where nothing was guessed, the last known token.
                missing = text.gather(1, now.count[:, None])
                part = _Part(slots, missing, now.count, now.alive)
                earlier = ((self._steps * len(self._drafters) + drafted + own) * rows) + self._rows[:, None]
                last = start + own * rows + self._rows[:, None]
                found.append(torch.where(self._steps < now.count[:, None], earlier, last))
                start, drafted = start + several * rows, drafted + several
            else:
                part = _Part(slots, text, nothing, queries)
                found.append(start + (own * rows + self._rows[:, None]) * places + self._steps)
                start += several * rows * places
            if work and shape.slots[work[-1][0].slots.start].model == model:
                work[-1].append(part)
            else:
                work.append([part])
        logits = self._run(work, now)
        if shape.drafting:
            logits = torch.cat([self._drafted.flatten(0, 2), logits])
        index = torch.cat(found)
        # Where a row has no term, the base's logits stand in, with coefficient 0.
        base = self._in["base"][None, :, None].expand(1, -1, places)
        return logits, torch.where(self._used(slice(None))[..., None], index, index.gather(0, base))

    def _run(self, work: Sequence[Sequence[_Part]], now: _Now) -> Tensor:
        """[N, V] logits of all parts, those of one model together, in order."""
        pieces = [self._forward(parts, now) for parts in work]
        return project(self._device.streams.run(pieces), self._size, self._device.place)

    def _forward(self, parts: Sequence[_Part], now: _Now) -> Callable[[], tuple[Tensor | None, Tensor]]:
        """One model's pass over the tokens of some of its slots."""
        device = self._device
        index = self.shape.slots[parts[0].slots.start].model
        model = device.family.models[index]
        sizes = [(part.slots.stop - part.slots.start) * part.tokens.numel() for part in parts]

        def run() -> tuple[Tensor | None, Tensor]:
            seats = [self._seat(part, now) for part in parts]
            paged = [
                PagedRows(
                    block_table=self._in["table"][part.slots].flatten(0, 1),
                    starts=None if len(parts) == 1 else _starts(seated.queries, part.tokens.shape[1], start),
                    queries=seated.queries,
                    lengths=seated.lengths,
                    block_size=device.block_size,
                    max_queries=part.tokens.shape[1],
                    max_length=self.shape.context,
                )
                for part, seated, start in zip(parts, seats, accumulate(sizes[:-1], initial=0), strict=True)
            ]
            batch = ForwardBatch(
                ids=joined([seated.ids for seated in seats])[None],
                positions=joined([seated.positions for seated in seats])[None],
                variants=joined([seated.variants for seated in seats]),
                pool=device.pools[index],
                block_size=device.block_size,
                paged=paged,
                gathers=device.gathers,
            )
            return model.head, model(batch, range(model.variants))

        return run

    def _seat(self, part: _Part, now: _Now) -> Seats:
        slots = part.slots
        return self._by.seat(
            part.tokens,
            now.first[slots],
            part.offset,
            part.queries,
            self._used(slots),
            self._in["variant"][slots],
        )

    def _target(self, logits: Tensor, index: Tensor) -> Tensor:
        """[R, V] log p at all R = B * (K + 1) positions, up to a constant."""
        places, inputs, family = self.shape.guesses + 1, self._in, self._device.family
        logp = self._combine(logits, _flat(index), _flat(inputs["target"]))
        if self.shape.selective:
            sizes = logits.masked_fill(~self._vocabulary, float("-inf")).logsumexp(-1, keepdim=True)
            unscaled = None
            if family.unscaled is not None:
                unscaled = inputs["unscaled"].repeat_interleave(places)[:, None] & family.unscaled
            careful = conservative(
                self._combine(logits, _flat(index), _flat(inputs["small"])),
                self._combine(logits - sizes, _flat(index), _flat(inputs["upscale"])),
                inputs["inside"].repeat_interleave(places) if self.shape.nucleus else None,
                unscaled,
            )
            logp = torch.where(inputs["careful"].repeat_interleave(places)[:, None], careful, logp)
        return logp

    def _allowed(self, logits: Tensor) -> Tensor:
        """Leave only tokens that the rows' grammars allow."""
        if not self.shape.grammar:
            return logits
        bits = (self._in["allowed"][..., None] >> self._bits) & 1
        allowed = bits.flatten(2)[..., : self._size].flatten(0, 1)
        return logits.masked_fill(allowed == 0, float("-inf"))

    def _reshaped(self, logits: Tensor, now: _Now) -> Tensor:
        """Apply the penalties of rows that have any, which count the guesses before a position too."""
        if not self.shape.penalties:
            return logits
        penalties = self._penalties(now)
        steps = [penalties]
        for step in range(self.shape.guesses):
            steps.append(_counted(steps[-1], self.guesses[:, step]))
        places = self.shape.guesses + 1
        whole = Penalties(
            counts=torch.stack([s.counts for s in steps], 1).flatten(0, 1),
            seen=torch.stack([s.seen for s in steps], 1).flatten(0, 1),
            repetition=penalties.repetition.repeat_interleave(places),
            frequency=penalties.frequency.repeat_interleave(places),
            presence=penalties.presence.repeat_interleave(places),
            bias=penalties.bias.repeat_interleave(places, 0),
        )
        reshaped = self._in["reshaped"].repeat_interleave(places)
        return torch.where(reshaped[:, None], penalize(logits, whole), logits)

    def _penalties(self, now: _Now) -> Penalties:
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

    def _sampling(self, now: _Now, steps: Tensor) -> Sampling:
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

    def _foresee(self, drawn: Tensor, now: _Now) -> None:
        """Report [B, K + 1] samples of q; where a model guessed, its guess, which no grammar restricts."""
        if self.shape.drafting:
            guessed = (self._in["given"] == 0) & (self._steps[:-1] < now.count[:, None])
            drawn[:, :-1] = torch.where(guessed, self.guesses, drawn[:, :-1])
        self._out["foreseen"].copy_(drawn)

    def _accept(self, tokens: Tensor, now: _Now) -> None:
        """Accept guesses as far as they are the [B, K + 1] tokens that were drawn, and move on."""
        right = (self.guesses == tokens[:, :-1]) & (self._steps[:-1] < now.count[:, None])
        accepted = right.long().cumprod(1).sum(1)
        self._out["guesses"].copy_(self.guesses)
        self._out["count"].copy_(now.count)
        self._out["tokens"].copy_(tokens)
        self._out["accepted"].copy_(accepted)
        last = tokens.gather(1, accepted[:, None])[:, 0]
        device, rows = self._device, slice(self.shape.rows)
        device.last[rows] = torch.where(now.alive, last, now.last)
        device.written[rows] = torch.where(now.alive, now.written + accepted + 1, now.written)

    def _report(self, logprobs: Tensor, tokens: Tensor) -> None:
        """Report [R, V] log-probabilities of the [R] tokens drawn and of the most probable ones."""
        top = logprobs.topk(min(TOP_LOGPROBS, self._size))
        self._out["logprob"].copy_(logprobs.gather(1, tokens[:, None]).view_as(self._out["logprob"]))
        for name, values in (("top_tokens", top.indices), ("top_logprobs", top.values)):
            self._out[name].flatten(0, 1)[:, : values.shape[1]] = values


def _runs(slots: Sequence[Slot]) -> list[slice]:
    """Where each kind of slot lies among the sorted slots."""
    starts = [i for i, slot in enumerate(slots) if not i or slots[i - 1] != slot]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(slots)], strict=True)]


def _starts(queries: Tensor, count: int, start: int) -> Tensor:
    """[rows] int32, where each row of `count` places begins on the packed axis."""
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


def _coupled(
    target: Draw, foretold: Draw, drafts: Tensor, sampling: Sampling, by: Operations
) -> Tensor | None:
    """[R] samples of p that follow those of q wherever they may; None where all rows are greedy."""
    if target.probs is None or foretold.probs is None:
        return None
    tokens = by.couple(target.probs, foretold.probs, foretold.tokens, sampling.seeds, sampling.positions)
    return torch.where(drafts, tokens, target.tokens)
