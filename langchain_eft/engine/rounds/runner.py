"""Runs rounds: launched without waiting, recorded where CUDA graphs can be, and read later; and prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.loading.kv_capacity import allocate_pools, allocate_states
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import warm_up
from langchain_eft.engine.rounds.cuda_graphs import CudaRecorder, Graphs, Recorder
from langchain_eft.engine.rounds.inputs import Rows, write_allowed
from langchain_eft.engine.rounds.model_pass import run_chunks
from langchain_eft.engine.rounds.outcomes import RoundResult, read_outcomes, read_undrawn
from langchain_eft.engine.rounds.round import Round
from langchain_eft.engine.rounds.shape import RoundShape, common_shapes, padded
from langchain_eft.engine.rounds.shared import Shared
from langchain_eft.engine.rounds.staging import Moment, PackedTensors, PendingCopy, now, seconds_between
from langchain_eft.engine.rounds.traces import non_finite_terms, traces
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow

MAX_SHAPES = 256
"""Most shapes whose rounds are kept."""


def host_may_look(placement: Placement) -> bool:
    """Whether the host reads values in the midst of rounds: not where a GPU with kernels has all models."""
    return not (has_kernel(placement.device) and placement.on_single_device)


def overlaps_rounds(placement: Placement) -> bool:
    """Whether the host launches a round before it has read the last one."""
    return not host_may_look(placement)


def recorder_for(config: EngineConfig, device: torch.device) -> Recorder | None:
    """What records rounds on a device, or None."""
    return CudaRecorder(device) if config.cuda_graphs and device.type == "cuda" else None


@dataclass(frozen=True)
class InFlight:
    """A round that the device has been given and the host has not read yet.

    Attributes:
        drafts: Its rows, in order, and how they draft.
        round: The round.
        copy: Its results on their way to the host.
        moments: When drafting began, when verifying began, and when it ended.
        measured: Whether its times say something about the next round: not those of a round that may be
            recorded later.
    """

    drafts: dict[RequestState, Draft]
    round: Round
    copy: PendingCopy
    moments: tuple[Moment, Moment, Moment]
    measured: bool


class Runner:
    """Runs the rounds of an engine.

    Attributes:
        pools: KV memory of each model.
        states: Recurrent states of each model that has such.
        table: What the device knows of each request.
        host_may_look: Whether the host reads values in the midst of rounds.
        overlaps: Whether a round is launched before the last one is read.

    Args:
        family: The models.
        placement: Where they run.
        config: How to use the machine.
        num_blocks: Blocks of one variant.

    Raises:
        InsufficientMemoryError: There is no memory for keys and values, or to record rounds.
    """

    def __init__(
        self, family: ModelFamily, placement: Placement, config: EngineConfig, num_blocks: int
    ) -> None:
        self.pools = allocate_pools(family, num_blocks * config.block_size)
        self.states = allocate_states(family, config)
        self._shared = Shared(
            family,
            self.pools,
            self.states,
            num_blocks,
            config.block_size,
            config.max_batch_size,
            host_may_look=host_may_look(placement),
        )
        self.host_may_look, self.overlaps = self._shared.host_may_look, overlaps_rounds(placement)
        self.table, self._config, device = self._shared.table, config, self._shared.device
        recorder = None if self.host_may_look else recorder_for(config, device)
        self._graphs = Graphs(recorder)
        self._rounds: OrderedDict[RoundShape, Round] = OrderedDict()
        self._occurred: set[RoundShape] = set()
        self._rows: Rows | None = None
        try:
            if device.type == "cuda":
                self._compile_kernels()
            if recorder is not None:
                self._record_common()
        except torch.OutOfMemoryError as error:
            self.free()  # the error may outlive this runner, and refers to it
            raise InsufficientMemoryError(
                f"There is no memory to record decoding rounds beside keys and values ({error}): lower "
                "`kv_cache_fraction`, `kv_cache_tokens` or `max_batch_size`."
            ) from error

    def free(self) -> None:
        """Free the memory of requests."""
        for pool in (*self.pools, *self.states):
            if pool is not None:
                pool.free()

    # Prompts

    @torch.inference_mode()
    def prefill(self, rows: Sequence[ScheduledRow]) -> RoundResult:
        """Compute tokens that are known, and draw for the rows that reach their last one."""
        for row in rows:
            for name, count in row.counts.items():
                row.state.prompts[name].begin(count)
        emitting = {row.state: Draft() for row in rows if row.emits}
        result = RoundResult(prefilled_tokens=sum(row.num_tokens for row in rows if not row.decodes))
        if not emitting:
            run_chunks(rows, self._shared, terms=0)
        else:
            of_round = Rows(list(emitting))
            round_ = self._round(of_round.shape(emitting, {}, None))
            self._write(round_, of_round, emitting)
            round_.inputs.send()
            try:
                logits, index = run_chunks(rows, self._shared, terms=round_.num_terms)
                round_.decide(logits, index, round_.begin())
                self._read(result, round_, round_.outputs.send().read(), emitting)
            finally:
                round_.clear()
        for row in rows:
            if row.state not in result.undrawn:
                for name, count in row.counts.items():
                    row.state.prompts[name].num_computed_tokens += count
        return result

    # Rounds

    @torch.inference_mode()
    def launch(self, drafts: Mapping[RequestState, Draft], unread: Mapping[RequestState, Draft]) -> InFlight:
        """Give the device a round.

        Args:
            drafts: Its rows, and how they draft.
            unread: Those of the last round, if it has not been read: the rows continue where it leaves them.
        """
        device = self._shared.device
        if self._rows is None or self._rows.states != list(drafts):
            self._rows = Rows(list(drafts))
        max_rows = None if self.host_may_look else self._config.max_batch_size
        round_ = self._round(shape := self._rows.shape(drafts, unread, max_rows))
        measured = self._is_recorded(round_)
        host = self._write(round_, self._rows, drafts)
        started = now(device)
        round_.inputs.send()
        if shape.drafting:
            self._graphs.run((shape, "draft"), round_.draft)
        drafted = now(device)
        if shape.grammar and shape.drafting:
            counts = host["count"].tolist() if self.host_may_look else [d.count for d in drafts.values()]
            made = [
                tokens[:count] for tokens, count in zip(round_.draft_tokens.tolist(), counts, strict=False)
            ]
            write_allowed(host, list(drafts), made[: len(drafts)])
            round_.inputs.send()
        self._graphs.run((shape, "verify"), round_.verify)
        moments = started, drafted, now(device)
        return InFlight(dict(drafts), round_, round_.outputs.send(), moments, measured)

    @torch.inference_mode()
    def collect(self, in_flight: InFlight) -> RoundResult:
        """Wait for a round's results; rows that have ended since its launch have none."""
        round_, content, result = in_flight.round, in_flight.copy.read(), RoundResult()
        self._read(result, round_, content, in_flight.drafts)
        if in_flight.measured:
            rows, count = len(in_flight.drafts), round_.shape.num_draft_tokens
            started, drafted, verified = in_flight.moments
            result.draft_passes = round_.draft_passes
            if round_.shape.drafting and not self.host_may_look:
                result.draft_passes = [(rows, seconds_between(started, drafted) / count)] * count
            num_tokens = int(content["count"][:rows].sum()) + rows
            result.verify_pass = num_tokens, seconds_between(drafted, verified)
        if self.host_may_look:
            round_.clear()
        for state, outcome in result.outcomes.items():
            for prompt in state.prompts.values():
                prompt.num_computed_tokens += len(outcome.tokens)
        return result

    def _write(self, round_: Round, rows: Rows, drafts: Mapping[RequestState, Draft]) -> PackedTensors:
        """Write a round's inputs, and what is new in the table."""
        host = round_.inputs.open()
        rows.write(host, round_.shape, self.table.of(rows.states), drafts)
        self.table.flush()
        if round_.shape.grammar:
            round_.grammars = [state.grammar for state in rows.states]
            if not round_.shape.drafting:
                write_allowed(host, rows.states, [draft.given_tokens for draft in drafts.values()])
        return host

    def _read(
        self,
        result: RoundResult,
        round_: Round,
        content: PackedTensors,
        drafts: Mapping[RequestState, Draft],
    ) -> None:
        """Take what a round has drawn."""
        family, row_of = self._shared.family, {state: row for row, state in enumerate(drafts)}
        result.undrawn = {
            state: non_finite_terms(state, round_, row_of[state], family)
            for state in read_undrawn(content, drafts)
        }
        for state, outcome in read_outcomes(content, round_.shape, drafts).items():
            traced = traces(state, outcome, round_, row_of[state], family) if state.request.trace else []
            result.outcomes[state] = replace(outcome, traces=traced)

    # Recordings

    def _round(self, shape: RoundShape) -> Round:
        """The round of a shape."""
        if shape not in self._rounds:
            self._rounds[shape] = Round(shape, self._shared)
        self._rounds.move_to_end(shape)
        if len(self._rounds) > MAX_SHAPES:
            dropped, _ = self._rounds.popitem(last=False)
            self._occurred.discard(dropped)
            for half in ("draft", "verify"):
                self._graphs.forget((dropped, half))
        return self._rounds[shape]

    @torch.inference_mode()
    def _compile_kernels(self) -> None:
        """Run what needs every variant of every kernel, so that none is compiled while requests wait."""
        warm_up.run_prompts(self._shared)
        for shape in warm_up.shapes(self._shared.family, self._config.max_batch_size):
            round_ = self._round(shape)
            round_.empty()
            if shape.drafting:
                round_.draft()
            round_.verify()

    @torch.inference_mode()
    def _record_common(self) -> None:
        """Record the rounds that requests are most likely to start with, the largest first."""
        family, config = self._shared.family, self._config
        sizes = {min(padded(rows), config.max_batch_size) for rows in config.cuda_graph_batch_sizes}
        shapes = [shape for rows in sorted(sizes, reverse=True) for shape in common_shapes(family, rows)]
        for shape in shapes[:MAX_SHAPES]:
            self._record(self._round(shape))

    def _is_recorded(self, round_: Round) -> bool:
        """Whether a round's recordings exist already; if its shape has run before, they do now.

        Requests wait while a round is recorded. So a round that occurs for the first time is called.
        """
        if self._missing(round_) and round_.shape not in self._occurred:
            self._occurred.add(round_.shape)
            return False
        return self._record(round_)

    def _record(self, round_: Round) -> bool:
        """Record a round that is not recorded yet; returns whether it was.

        Recording runs the round several times. Its inputs hold no row, so no run writes keys and values.
        """
        missing = self._missing(round_)
        if missing:
            round_.empty()
        for half in missing:
            self._graphs.record((round_.shape, half), getattr(round_, half))
        return not missing

    def _missing(self, round_: Round) -> list[str]:
        """The halves of a round that are not recorded yet."""
        halves = ["draft", "verify"] if round_.shape.drafting else ["verify"]
        return [half for half in halves if (round_.shape, half) not in self._graphs]
