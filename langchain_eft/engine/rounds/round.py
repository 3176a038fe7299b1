"""One round of speculative decoding over tensors: draft, verify, accept.

A round is a program over rows in fixed places. Its shape alone decides which operations run, and no value is
read back to the host. So a GPU records its two halves as CUDA graphs. Where the host may look, which is free
on a CPU, a round also drops padding, stops drafting early, and lets grammars restrict what is drafted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.decoding.distributions import Distributions
from langchain_eft.engine.decoding.formula_table import Columns
from langchain_eft.engine.decoding.grammar import Grammar
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.models.causal_model import joined
from langchain_eft.engine.rounds.entries import Entries, PartPlaces
from langchain_eft.engine.rounds.inputs import input_fields
from langchain_eft.engine.rounds.model_pass import Part, SlotRows, run_parts, runs
from langchain_eft.engine.rounds.outcomes import output_fields
from langchain_eft.engine.rounds.progress import RowProgress, accept, begin
from langchain_eft.engine.rounds.sampler import Sampler, Wanted
from langchain_eft.engine.rounds.shape import RoundShape, TermSlot
from langchain_eft.engine.rounds.shared import Shared
from langchain_eft.engine.rounds.staging import DeviceToHost, HostToDevice


class Start(NamedTuple):
    """Where the rows stand.

    Attributes:
        progress: Their last tokens, and what follows from them.
        columns: [B] rows of the table.
        coefficients: [B, sums, T] of the next token.
        history: `Sampler.history` of the tokens so far, if a row has penalties.
    """

    progress: RowProgress
    columns: Columns
    coefficients: Tensor
    history: tuple[Tensor, Tensor] | None


class Round:
    """The rounds of one shape.

    B rows, K draft tokens, S slots for terms of which D draft, T terms of a row, V token ids, R positions at
    which tokens are drawn (at most B * (K + 1)), N computed logits.

    Attributes:
        shape: The shape.
        inputs: What the host tells the device (`inputs.input_fields`).
        outputs: What the device tells the host (`outcomes.output_fields`).
        draft_tokens: [B, K] int64.
        grammars: Of the rows, where the host may look.
        draft_passes: Rows and seconds of each draft pass, where the host may look.
        logits: [N, V] of the last round.
        wanted: The positions at which it has drawn.
        logp: [R, V] log p there, up to a constant.
        opened: [R, G] which gates are open there, if a row has one.
    """

    logits: Tensor
    wanted: Wanted
    logp: Tensor
    opened: Tensor | None
    grammars: Sequence[Grammar | None]

    def __init__(self, shape: RoundShape, shared: Shared) -> None:
        self.shape, self._shared = shape, shared
        device = shared.device
        terms, vocabulary_size = min(len(shape.slots), shared.table.num_terms), len(shared.family.vocabulary)
        self.inputs = HostToDevice(input_fields(shape, terms, vocabulary_size), device)
        self.outputs = DeviceToHost(output_fields(shape), device)
        self._in, self._out = self.inputs.device, self.outputs.device
        self.draft_tokens = torch.zeros(shape.rows, shape.num_draft_tokens, dtype=torch.int64, device=device)
        self._distributions = Distributions(
            shared.family, gates=shape.gates, upscales_some=shape.conservative, nucleus=shape.nucleus
        )
        self._num_draft_terms = min(sum(slot.role == "drafts" for slot in shape.slots), terms)
        self._sampler = Sampler(shape, vocabulary_size, self._in, self.draft_tokens)
        self._padded = not shared.host_may_look
        self._entries = Entries(shape, device, padded=self._padded)
        self._memory = shared.logits(self._entries.count) if self._padded and shape.drafting else None
        self._rows = torch.arange(shape.rows, device=device)
        self._steps = torch.arange(shape.positions, device=device)
        self._nothing = torch.zeros(shape.rows, dtype=torch.int64, device=device)
        self._all_rows = self._rows.repeat_interleave(shape.positions)
        self._all_steps = self._steps.repeat(shape.rows)
        self._end_ids = torch.tensor(sorted(shared.family.end_ids), device=device)
        self._runs = runs(shape.slots)
        self.clear()

    @property
    def num_terms(self) -> int:
        """T, most terms of a row."""
        return self._in["slot"].shape[1]

    def first_position(self, row: int) -> int:
        """Which of the R positions is a row's first."""
        return int((self.wanted.row < row).sum())

    def empty(self) -> None:
        """Give the round inputs that hold no row."""
        host = self.inputs.open()
        if self.shape.grammar:
            host["allowed"].fill_(-1)
        self.inputs.send()

    def clear(self) -> None:
        """Free what belongs to the last round."""
        self._begin_anew()
        self.grammars = ()

    def _begin_anew(self) -> None:
        """Forget what the last round has computed."""
        for name in ("logits", "wanted", "logp", "opened"):
            self.__dict__.pop(name, None)
        self._num_logits = 0
        self._computed: list[Tensor] = []
        self._drawn: list[Draw] = []
        self._drafted: list[Tensor] = []  # [D, B] of each draft pass, where its logits begin
        self.draft_passes: list[tuple[int, float]] = []

    # The algorithm

    @torch.inference_mode()
    def draft(self) -> None:
        """Draft with the small models, one pass for each token; rows with given draft tokens follow those."""
        self._begin_anew()
        start = self.begin()
        self._take_given()
        is_given, given = self._in["given"] > 0, self.draft_tokens.clone()
        token, ran = start.progress.last, self._ran(start.progress)
        made = self._steps[:, None] < ran
        slots = self._slot_rows(start)
        wanted = self._draft_positions(self._entries.first, start)
        positions, sampling = start.progress.num_tokens + self._steps[:, None], self._sampler.sampling(wanted)
        runs = [run for run in self._runs if self._drafts(run)]
        for step in range(self.shape.num_draft_tokens):
            if not self._padded and not made[step].any():
                break
            began, offset = time.perf_counter(), self._steps[step].expand_as(ran)
            logits, firsts = self._run([Part(run, token[:, None], offset, made[step]) for run in runs], slots)
            q = self._draft_target(self._after(wanted, step, firsts, start), logits, start, step)
            drawn = draw(q, replace(sampling, positions=positions[step]))
            token = torch.where(is_given[:, step], given[:, step], drawn.tokens)
            self.draft_tokens[:, step] = token
            if not self._padded:
                self._drawn.append(drawn)
                self.draft_passes.append((int(made[step].sum()), time.perf_counter() - began))
                # A row drafts nothing behind the end of its answer.
                made[step + 1 :] &= ~torch.isin(token, self._end_ids)
                self._in["count"].copy_(torch.where(is_given[:, 0], self._in["count"], made.sum(0)))

    @torch.inference_mode()
    def verify(self) -> None:
        """Run what every term has still to run, draw from p at every position, and accept."""
        start = self.begin()
        if not self.shape.drafting:
            self._begin_anew()
            self._take_given()
        tokens = torch.cat([start.progress.last[:, None], self.draft_tokens], 1)
        queries = torch.where(start.progress.alive, start.progress.count + 1, 0)
        if self._memory is not None:  # recordings run this half alone
            self._num_logits = self._entries.num_drafted
        ran, before = self._ran(start.progress), self._num_logits
        parts = [
            self._undrafted(run, tokens, queries, ran)
            if self._drafts(run) and self.shape.drafting
            else Part(run, tokens, self._nothing, queries)
            for run in self._runs
        ]
        _, firsts = self._run(parts, self._slot_rows(start))
        places = [
            PartPlaces(first + before, part.offset, part.tokens.shape[1])
            for first, part in zip(firsts, parts, strict=False)
        ]
        index = self._entries.of_round(places, self._drafted, ran, self._in["slot"])
        self.decide(joined(self._computed) if self._memory is None else self._memory, index, start)

    def decide(self, logits: Tensor, index: Tensor, start: Start) -> None:
        """Draw from p at every position, and accept.

        Args:
            logits: [N, V], all of the round.
            index: [B, K + 1, T] int64, which of them the terms of a row have after each draft token.
            start: Where the rows stand.
        """
        shape, sampler = self.shape, self._sampler
        wanted = self._wanted(index, start)
        logp, opened = self._distributions.target(logits, wanted.entry, wanted.columns, wanted.coefficients)
        target = self._restricted(wanted, logp, start)
        # The largest value is NaN if any is. It is infinite if no token has a probability, or one overflows.
        finite = target.amax(-1).isfinite()
        sampling = sampler.sampling(wanted)
        if shape.draft_samples:
            drafts = wanted.columns["num_draft_terms"] > 0
            samples = self._samples(wanted, logits, target, drafts, sampling, start)
            tokens = sampler.accept_or_resample(target, samples, sampling)
            self._report_samples(self._by_row(wanted, torch.where(drafts, samples.tokens, -1), -1), start)
        else:
            tokens = draw(target, sampling).tokens
        accept(
            self.draft_tokens,
            self._by_row(wanted, tokens, 0),
            self._by_row(wanted, finite, 0),
            start.progress,
            self._out,
            self._in["rows"],
            self._shared.table.progress,
        )
        if shape.logprobs:
            self._report_logprobs(wanted, logp.log_softmax(-1), tokens)
        self.logits, self.wanted, self.logp, self.opened = logits, wanted, logp, opened

    # Rows and positions

    def begin(self) -> Start:
        """Where the rows stand."""
        rows, table = self._in["rows"], self._shared.table
        columns = table.columns(rows)
        progress = begin(rows, self._in["count"], columns["limit"], columns["prompt"], table.progress)
        coefficients = table.coefficients.at(rows, progress.num_output_tokens, change=self.shape.scheduled)
        history = self._sampler.history(columns, progress.num_tokens) if self.shape.penalties else None
        return Start(progress, columns, coefficients, history)

    def _drafts(self, run: slice) -> bool:
        """Whether the terms of a run of slots draft."""
        slot: TermSlot = self.shape.slots[run.start]
        return slot.role == "drafts"

    def _take_given(self) -> None:
        """Use the draft tokens that the host knows."""
        self.draft_tokens.copy_((self._in["given"] - 1).clamp(min=0))

    def _ran(self, progress: RowProgress) -> Tensor:
        """[B] int64, draft tokens before which drafting runs the terms that draft."""
        if self._padded or not self.shape.drafting:
            return progress.count
        return torch.where(self._in["given"][:, 0] > 0, 0, progress.count)

    def _undrafted(self, run: slice, tokens: Tensor, queries: Tensor, ran: Tensor) -> Part:
        """What drafting has not run of [B, K + 1] tokens: the last, or all in rows that draft otherwise."""
        if self._padded:
            return Part(run, tokens.gather(1, ran[:, None]), ran, queries > 0)
        at = (ran[:, None] + self._steps).clamp(max=len(self._steps) - 1)
        return Part(run, tokens.gather(1, at), ran, (queries - ran).clamp(min=0))

    def _slot_rows(self, start: Start) -> SlotRows:
        return SlotRows.of(
            self.shape, self._shared, self._in, start.columns, start.progress.num_output_tokens
        )

    def _run(self, parts: Sequence[Part], slots: SlotRows) -> tuple[Tensor, list[Tensor]]:
        """The logits of a pass, and where those of each part begin, if it drops padding."""
        out, first = None, self._num_logits
        if self._memory is not None:
            size = sum((part.slots.stop - part.slots.start) * part.tokens.numel() for part in parts)
            out = self._memory[first : first + size]
        logits, firsts = run_parts(parts, slots, self.shape, self._shared, out)
        if self._memory is None:
            self._computed.append(logits)
        self._num_logits += len(logits)
        return logits, firsts

    def _draft_positions(self, first: Tensor, start: Start) -> Wanted:
        """The position after the last known token of every row, by [D, B] logits of a draft pass."""
        slot = self._in["slot"][:, : self._num_draft_terms]
        entry = self._entries.of_draft_pass(first, slot, start.columns["num_draft_terms"])
        progress, columns, coefficients, _ = start
        return Wanted(self._rows, self._nothing, progress.num_tokens, entry, columns, coefficients)

    def _after(self, wanted: Wanted, step: int, firsts: Sequence[Tensor], start: Start) -> Wanted:
        """The position of every row after some draft tokens, [B]."""
        if not self._padded:
            first = joined(list(firsts))
            self._drafted.append(first + self._num_logits - len(self._computed[-1]))
            wanted = self._draft_positions(first, start)
        if self.shape.scheduled:
            number, table = start.progress.num_output_tokens + step, self._shared.table.coefficients
            wanted = wanted._replace(coefficients=table.at(self._in["rows"], number, change=True))
        return wanted._replace(step=self._steps[step].expand_as(self._rows))

    def _wanted(self, index: Tensor, start: Start) -> Wanted:
        """The positions at which tokens are drawn: without padding, where the host may look.

        Args:
            index: [B, K + 1, T] int64, the logits of each row and step.
            start: Where the rows stand.
        """
        row, step, entry = self._all_rows, self._all_steps, index.flatten(0, 1)
        if not self._padded and self.shape.num_draft_tokens:
            live = (self._steps <= start.progress.count[:, None]).flatten().nonzero()[:, 0]
            row, step, entry = row[live], step[live], entry[live]
        coefficients = start.coefficients[row]
        if self.shape.scheduled:
            number = start.progress.num_output_tokens[row] + step
            coefficients = self._shared.table.coefficients.at(self._in["rows"][row], number, change=True)
        return Wanted(
            row, step, start.progress.num_tokens[row] + step, entry, start.columns.take(row), coefficients
        )

    def _by_row(self, wanted: Wanted, values: Tensor, padding: int) -> Tensor:
        """[R] to [B, K + 1], with `padding` where no token is drawn."""
        rows, positions = self.shape.rows, self.shape.positions
        if len(values) == rows * positions:
            return values.view(rows, positions)
        padded = values.new_full((rows, positions), padding)
        padded[wanted.row, wanted.step] = values
        return padded

    # Draws

    def _draft_target(self, wanted: Wanted, logits: Tensor, start: Start, step: int) -> Tensor:
        """[B, V] log q after some draft tokens, up to a constant, by the logits of that pass."""
        q = self._distributions.draft(logits, wanted.entry, wanted.coefficients)
        if self.shape.grammar and not self._padded:
            of_rows = zip(self.grammars, self.draft_tokens[:, :step].tolist(), strict=True)
            for row, (grammar, tokens) in enumerate(of_rows):
                if grammar is not None:
                    q[row].masked_fill_(~grammar.mask(tokens).to(q.device), float("-inf"))
        return self._sampler.penalized(wanted, q, start.history, step)

    def _restricted(self, wanted: Wanted, logits: Tensor, start: Start) -> Tensor:
        """[R, V] with grammars, penalties and biases applied."""
        allowed = self._sampler.allowed(wanted, logits)
        return self._sampler.penalized(wanted, allowed, start.history, self.shape.num_draft_tokens)

    def _samples(
        self, wanted: Wanted, logits: Tensor, target: Tensor, drafts: Tensor, sampling: Sampling, start: Start
    ) -> Draw:
        """Samples of q at all R positions, and of p where a row has no q.

        Args:
            wanted: The positions.
            logits: [N, V], all of the round.
            target: [R, V] log p up to a constant.
            drafts: [R] bool, whether the row has a q.
            sampling: R rows.
            start: Where the rows stand.
        """
        shape, entry = self.shape, wanted.entry[:, : self._num_draft_terms]
        if not self._drawn or shape.grammar or shape.penalties or shape.biases:
            q = self._restricted(wanted, self._distributions.draft(logits, entry, wanted.coefficients), start)
            return draw(_where_finite(drafts, q, target), sampling)
        # Those that drafting has drawn are not drawn again.
        drafted = wanted.step < self._ran(start.progress)[wanted.row]
        rest = (~drafted).nonzero()[:, 0]
        q = self._distributions.draft(logits, entry[rest], wanted.coefficients[rest])
        drawn = draw(_where_finite(drafts[rest], q, target[rest]), sampling.of_rows(rest))
        tokens, probs = torch.empty_like(wanted.row), None
        tokens[rest] = drawn.tokens
        if drawn.probs is not None:
            probs = drawn.probs.new_empty(len(tokens), q.shape[1])
            probs[rest] = drawn.probs
        for step, earlier in enumerate(self._drawn):
            at = (drafted & (wanted.step == step)).nonzero()[:, 0]
            tokens[at] = earlier.tokens[wanted.row[at]]
            if probs is not None and earlier.probs is not None:
                probs[at] = earlier.probs[wanted.row[at]]
        return Draw(tokens, probs)

    # What the host is told

    def _report_samples(self, samples: Tensor, start: Start) -> None:
        """Report [B, K + 1] samples of q: the draft token itself where a model drafted one."""
        if self.shape.drafting:
            drafted = (self._in["given"] == 0) & (self._steps[:-1] < start.progress.count[:, None])
            samples[:, :-1] = torch.where(drafted, self.draft_tokens, samples[:, :-1])
        self._out["draft_samples"].copy_(samples)

    def _report_logprobs(self, wanted: Wanted, logprobs: Tensor, tokens: Tensor) -> None:
        """Report [R, V] log-probabilities of the [R] tokens drawn and of the most probable ones."""
        top, at = logprobs.topk(min(MOST_TOP_LOGPROBS, logprobs.shape[1])), (wanted.row, wanted.step)
        self._out["logprob"][at] = logprobs.gather(1, tokens[:, None])[:, 0]
        for name, values in (("top_tokens", top.indices), ("top_logprobs", top.values)):
            self._out[name][..., : values.shape[1]][at] = values


def _where_finite(drafts: Tensor, q: Tensor, p: Tensor) -> Tensor:
    """[R, V] log q where a row has a finite one, else log p, which may do without the term that is NaN."""
    return torch.where((drafts & q.amax(-1).isfinite())[:, None], q, p)
