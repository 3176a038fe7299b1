"""Runs static rounds: launched without waiting, recorded where CUDA graphs can be, and read later.

Takes rounds in which all rows decode, whatever their mixtures, prompts, filters, penalties, grammars and
log-probabilities. A grammar has to see what the small models draft, so there the host waits between the two
halves of a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import warm_up
from langchain_eft.engine.rounds.cuda_graphs import CudaRecorder, Graphs, Recorder
from langchain_eft.engine.rounds.result import RoundResult
from langchain_eft.engine.rounds.round_cache import MAX_SHAPES, RoundCache
from langchain_eft.engine.rounds.round_state import RoundState
from langchain_eft.engine.rounds.shape import RoundShape, common_shapes, padded
from langchain_eft.engine.rounds.staging import Moment, PendingCopy, now, seconds_between
from langchain_eft.engine.rounds.static import RoundLogits, StaticRound
from langchain_eft.engine.rounds.static_rows import StaticRows
from langchain_eft.engine.rounds.transfer import read_outcomes, read_undrawn, write_allowed, write_rows
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow


def decodes_statically(config: EngineConfig, placement: Placement) -> bool:
    """Whether decoding rounds are static: by default on a GPU that holds all models.

    Raises:
        RecipeError: Static rounds are demanded, and the models are spread over devices or processes.
    """
    if config.static_rounds and not placement.on_single_device:
        raise RecipeError(
            "static_rounds=True needs all models whole on one device: leave `small_device`, `device_map` "
            "and `tensor_parallel` at their defaults, or `static_rounds` at None."
        )
    on_cuda = placement.device.type == "cuda" and placement.on_single_device
    return on_cuda if config.static_rounds is None else config.static_rounds


def overlaps_rounds(config: EngineConfig, placement: Placement) -> bool:
    """Whether the host launches a static round before it has read the last one: by default on a GPU."""
    return placement.device.type == "cuda" if config.overlap_rounds is None else config.overlap_rounds


def recorder_for(config: EngineConfig, device: torch.device) -> Recorder | None:
    """What records rounds on a device, or None."""
    return CudaRecorder(device) if config.cuda_graphs and device.type == "cuda" else None


@dataclass(frozen=True)
class PendingRound:
    """A round that the device has been given and the host has not read yet.

    Attributes:
        drafts: Its rows, in order, and how they draft.
        shape: Its shape.
        copy: Its results on their way to the host.
        moments: When drafting began, when verifying began, and when it ended.
        recorded: Whether its recordings existed before, so that its times say something about the next.
    """

    drafts: dict[RequestState, Draft]
    shape: RoundShape
    copy: PendingCopy
    moments: tuple[Moment, Moment, Moment]
    recorded: bool


class StaticRunner:
    """Runs rounds in which all rows decode.

    Args:
        family: The models.
        pools: Their KV memory.
        num_blocks: Blocks of one variant.
        config: How to use the machine.
    """

    def __init__(
        self, family: ModelFamily, pools: Sequence[KVPool], num_blocks: int, config: EngineConfig
    ) -> None:
        self._state = RoundState(family, pools, num_blocks, config.block_size, config.max_batch_size)
        recorder = recorder_for(config, self._state.device)
        self._graphs = Graphs(recorder, keep=(self._state.last, self._state.num_output_tokens))
        # Neither function refers to this runner: a circle would keep its memory after it is closed.
        self._rounds = RoundCache(
            partial(StaticRound, state=self._state, memory=RoundLogits(self._state.device)),
            partial(_forget_recordings, self._graphs),
        )
        self._config = config
        self._rows: StaticRows | None = None
        try:
            if self._state.device.type == "cuda":
                self._compile_kernels()
            if recorder is not None:
                self._record_common()
        except torch.OutOfMemoryError as error:
            for pool in pools:  # the error may outlive this runner, and refers to it
                pool.free()
            raise InsufficientMemoryError(
                f"There is no memory to record decoding rounds beside keys and values ({error}): lower "
                "`kv_cache_fraction`, `kv_cache_tokens` or `max_batch_size`."
            ) from error

    def _compile_kernels(self) -> None:
        """Run what needs every variant of every kernel, so that none is compiled while requests wait."""
        warm_up.run_prompts(self._state)
        for shape in warm_up.shapes(self._state.family, self._config.max_batch_size):
            static = self._rounds[shape]
            _clear_inputs(static)
            if shape.drafting:
                static.draft()
            static.verify()

    def _record_common(self) -> None:
        """Record the rounds that requests are most likely to start with, the largest first."""
        family, config = self._state.family, self._config
        sizes = {min(padded(rows), config.max_batch_size) for rows in config.cuda_graph_batch_sizes}
        shapes = [shape for rows in sorted(sizes, reverse=True) for shape in common_shapes(family, rows)]
        for shape in shapes[:MAX_SHAPES]:
            self._record(self._rounds[shape])

    def _record(self, static: StaticRound) -> bool:
        """Record a round that is not recorded yet; returns whether it was.

        Recording runs the round several times. Its inputs hold no row, so no run writes keys and values.
        """
        missing = self._missing(static)
        if missing:
            _clear_inputs(static)
        for half in missing:
            self._graphs.record((static.shape, half), getattr(static, half))
        return not missing

    def _missing(self, static: StaticRound) -> list[str]:
        """The halves of a round that are not recorded yet."""
        halves = ["draft", "verify"] if static.shape.drafting else ["verify"]
        return [half for half in halves if (static.shape, half) not in self._graphs]

    def _is_recorded(self, static: StaticRound) -> bool:
        """Whether a round's recordings exist already; if it has run before, they do now.

        Requests wait while a round is recorded. So a round that occurs for the first time is called.
        """
        if self._missing(static) and not static.occurred:
            static.occurred = True
            return False
        return self._record(static)

    def takes(self, row: ScheduledRow) -> bool:
        """Whether a row's round can be a static one."""
        return row.decodes and not row.state.request.trace

    def launch(
        self, drafts: Mapping[RequestState, Draft], unread: PendingRound | None = None
    ) -> PendingRound:
        """Give the device a round.

        Args:
            drafts: Its rows, and how they draft.
            unread: The last round, if it has not been read: its rows continue where it leaves them.
        """
        earlier = unread.drafts if unread else {}
        device, states = self._state.device, list(drafts)
        rows = self._rows_of(states)
        shape = rows.shape(drafts, earlier)
        static = self._rounds[shape]
        recorded = self._is_recorded(static)
        host = static.inputs.open(rows)
        rows.write(host, shape, drafts, earlier)
        if shape.grammar and not shape.drafting:
            given = [draft.given_tokens for draft in drafts.values()]
            write_allowed(host, states, given, static.vocabulary_size)
        started = now(device)
        static.inputs.send()
        if shape.drafting:
            self._graphs.run((shape, "draft"), static.draft)
        drafted = now(device)
        if shape.grammar and shape.drafting:
            pairs = zip(static.draft_tokens.tolist(), drafts.values(), strict=False)
            draft_tokens = [tokens[: draft.count] for tokens, draft in pairs]
            write_allowed(host, states, draft_tokens, static.vocabulary_size)
            static.inputs.send()
        self._graphs.run((shape, "verify"), static.verify)
        moments = started, drafted, now(device)
        return PendingRound(dict(drafts), shape, static.outputs.send(), moments, recorded)

    def _rows_of(self, states: Sequence[RequestState]) -> StaticRows:
        """The rows of the last round, if these are the same; else new ones."""
        if self._rows is None or not self._rows.are(states):
            self._rows = StaticRows(states, self._config.max_batch_size, self._state.num_blocks)
        return self._rows

    def collect(self, pending: PendingRound) -> RoundResult:
        """Wait for a round's results; rows that have ended since its launch have none."""
        shape, content = pending.shape, pending.copy.read()
        outcomes = read_outcomes(content, shape, pending.drafts)
        result = RoundResult(outcomes, dict.fromkeys(read_undrawn(content, pending.drafts), ()))
        if pending.recorded:
            rows, (started, drafted, verified) = len(pending.drafts), pending.moments
            if shape.drafting:
                seconds = seconds_between(started, drafted) / shape.num_draft_tokens
                result.draft_passes = [(rows, seconds)] * shape.num_draft_tokens
            num_tokens = int(content["count"][:rows].sum()) + rows
            result.verify_pass = num_tokens, seconds_between(drafted, verified)
        for state, outcome in outcomes.items():
            for prompt in state.prompts.values():
                prompt.num_computed_tokens += len(outcome.tokens)
        return result


def _clear_inputs(static: StaticRound) -> None:
    """Give a round inputs that hold no row."""
    host = static.inputs.open()
    write_rows(host, static.shape, {}, [], {})
    if static.shape.grammar:
        write_allowed(host, [], [], static.vocabulary_size)
    static.inputs.send()


def _forget_recordings(graphs: Graphs, shape: RoundShape) -> None:
    for half in ("draft", "verify"):
        graphs.forget((shape, half))
