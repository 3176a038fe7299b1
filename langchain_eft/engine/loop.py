"""The decoding loop: the one thread that owns the device, round by round."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import DecodingError, EngineClosedError, EngineError, QueueFullError
from langchain_eft.engine.events import Failed
from langchain_eft.engine.loading.kv_capacity import count_blocks
from langchain_eft.engine.loading.memory import return_freed_memory
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds.packed_runner import PackedRunner
from langchain_eft.engine.rounds.result import RoundResult
from langchain_eft.engine.rounds.static_runner import (
    PendingRound,
    StaticRunner,
    decodes_statically,
    overlaps_rounds,
)
from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow, Scheduler
from langchain_eft.engine.scheduling.speculator import Speculator
from langchain_eft.engine.stats import EngineStats

T = TypeVar("T")


class DecodingLoop:
    """Runs rounds until it is stopped: schedule, draft, run, accept, deliver.

    Other threads add requests and jobs, and read statistics. Everything else happens on the thread that
    calls `run`, which must be the one that constructs the loop.

    Attributes:
        blocks: The KV memory of all requests.
        speculator: Decides how requests draft.

    Args:
        family: The loaded models.
        placement: Where they run.
        config: How to use the machine.
        max_model_len: Tokens of the longest request.

    Raises:
        InsufficientMemoryError: KV memory that does not fit beside the weights.
        RecipeError: Static rounds for models that are spread over devices.
    """

    def __init__(
        self, family: ModelFamily, placement: Placement, config: EngineConfig, max_model_len: int
    ) -> None:
        self.blocks = BlockManager(count_blocks(family, config, max_model_len), config.block_size)
        self.speculator = Speculator(family.bytes_read)
        self._family, self._config = family, config
        self._scheduler = Scheduler(self.blocks, config.max_batch_size, config.max_num_batched_tokens)
        self._packed = PackedRunner(family, self.blocks.num_blocks, config.block_size, config.max_batch_size)
        self._static: StaticRunner | None = None
        if decodes_statically(config, placement):
            self._static = StaticRunner(family, self._packed.pools, self.blocks.num_blocks, config)
        self._overlap = overlaps_rounds(config, placement)
        self._pending: PendingRound | None = None
        self._submitted: list[RequestState] = []
        self._jobs: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._totals: Counter[str] = Counter()
        self._stopped = False
        self._process = os.getpid()
        self._wake = threading.Condition()

    # What other threads call

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, or this process is a fork, which has no thread that decodes."""
        return self._stopped or self._process != os.getpid()

    def add(self, state: RequestState) -> None:
        """Queue a request.

        Raises:
            QueueFullError: Too many requests wait already.
            EngineClosedError: The loop was stopped.
        """
        with self._wake:
            self._require_running()
            waiting = len(self._scheduler.waiting) + len(self._submitted)
            if waiting >= self._config.max_queued_requests:
                raise QueueFullError(waiting, len(self._scheduler.running))
            self._submitted.append(state)
            self._wake.notify()

    def run_job(self, work: Callable[[], T]) -> T:
        """Run a function on the loop's thread, between two rounds, and wait for its result.

        Raises:
            DecodingError: The function failed.
            EngineClosedError: The loop was stopped.
        """
        result: Future[T] = Future()
        with self._wake:
            self._require_running()
            self._jobs.append((work, result))
            self._wake.notify()
        return result.result()

    def stats(self) -> EngineStats:
        """What the loop does now, and what it has done."""
        totals = ("generated_tokens", "prefilled_tokens", "drafted_tokens", "accepted_tokens")
        with self._wake:
            return EngineStats(
                running=len(self._scheduler.running),
                waiting=len(self._scheduler.waiting) + len(self._submitted),
                free_blocks=self.blocks.num_free_blocks,
                weight_bytes=self._family.weight_bytes,
                cached_tokens=self._scheduler.cached_tokens,
                preemptions=self._scheduler.preemptions,
                **{name: self._totals[name] for name in totals},
            )

    def stop(self) -> None:
        """Let `run` fail what it has and return."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def _require_running(self) -> None:
        if self.stopped:
            raise EngineClosedError("The engine is closed: open it again or build a new model.")

    # What the loop's thread runs

    def run(self) -> None:
        """Decode until `stop` is called, then fail everything that has not ended."""
        try:
            while self._wait_for_work():
                self._run_jobs()
                try:
                    self._round()
                except Exception as error:  # noqa: BLE001  (whatever the device raises ends requests, not the engine)
                    failure = DecodingError(f"Decoding failed: {error}")
                    failure.__cause__ = error
                    self._fail_all(failure)
        finally:
            self._fail_all(EngineClosedError("The engine was closed while the request ran."))
            self._release()

    def _release(self) -> None:
        """Free weights and KV memory, even if callers keep the engine."""
        self._family.close()
        for pool in self._packed.pools:
            pool.free()
        self._static = None
        return_freed_memory()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do, and take in new requests; False once the loop is stopped."""
        with self._wake:
            scheduler = self._scheduler
            self._wake.wait_for(
                lambda: (
                    self._stopped
                    or self._submitted
                    or self._jobs
                    or self._pending
                    or scheduler.running
                    or scheduler.waiting
                )
            )
            for state in self._submitted:
                scheduler.add(state)
            self._submitted.clear()
            scheduler.remove_ended()
            return not self._stopped

    def _run_jobs(self) -> None:
        with self._wake:
            jobs, self._jobs = self._jobs, []
        for work, result in jobs:
            try:
                result.set_result(work())
            except Exception as error:  # noqa: BLE001  (handed to the thread that waits for it)
                result.set_exception(DecodingError(f"Scoring failed: {error}"))

    def _round(self) -> None:
        """One round: schedule, draft, run, accept, deliver."""
        pending, self._pending = self._pending, None
        if pending is None:
            rows = self._scheduler.schedule()
            if not rows:
                return
            drafts = self._draft(rows)
            if self._static is None or not all(map(self._static.takes, rows)):
                result = self._packed.run(rows, drafts)
                self._accept([row.state for row in rows], result)
                self._deliver(result)
                return
            pending = self._static.launch(drafts)
        result = self._collect(pending)
        self._accept(list(result.outcomes), result)
        self._deliver(result)

    def _draft(self, rows: Sequence[ScheduledRow]) -> dict[RequestState, Draft]:
        """Choose how the decoding rows draft, as far as memory allows."""
        decoding = [row.state for row in rows if row.decodes]
        drafts = self.speculator.draft(decoding, prefilling=len(decoding) < len(rows))
        return self._scheduler.reserve(drafts)

    def _draft_ahead(self, pending: PendingRound) -> dict[RequestState, Draft] | None:
        """The drafts of the round after one that has not been read; None if it has to be read first."""
        if not self._overlap or not self._scheduler.batch_unchanged(pending.drafts):
            return None
        drafts = self.speculator.draft_ahead(pending.drafts)
        if drafts is None:
            return None
        reserved = self._scheduler.reserve(drafts, pending.drafts)
        return reserved if len(reserved) == len(drafts) else None

    def _collect(self, pending: PendingRound) -> RoundResult:
        """Read a static round; the next one is launched before that, if nothing in this one decides it."""
        assert self._static is not None  # noqa: S101  (it has launched the round)
        following = self._draft_ahead(pending)
        if following is not None:
            self._pending = self._static.launch(following, pending)
        return self._static.collect(pending)

    def _accept(self, states: Sequence[RequestState], result: RoundResult) -> None:
        """Learn from a round, append its tokens to the answers, and free what has ended."""
        self.speculator.observe(result.outcomes)
        if result.verify_pass and not result.prefilled_tokens:
            self.speculator.observe_costs(states, result.draft_passes, result.verify_pass)
        totals = Counter(prefilled_tokens=result.prefilled_tokens)
        for state, outcome in result.outcomes.items():
            totals["generated_tokens"] += state.accept(outcome)
            totals["drafted_tokens"] += len(outcome.draft_tokens)
            totals["accepted_tokens"] += outcome.num_accepted
        with self._wake:
            self._totals += totals
            self._scheduler.cache_full_blocks(states)
            self._scheduler.remove_ended()

    def _deliver(self, result: RoundResult) -> None:
        """Hand events to the callers; last, so that the memory of a finished answer is free by then."""
        for state in result.outcomes:
            state.deliver()

    def _fail_all(self, error: EngineError) -> None:
        with self._wake:
            states = [*self._scheduler.running, *self._scheduler.waiting, *self._submitted]
            self._submitted.clear()
            self._pending = None
            for _, result in self._jobs:
                result.set_exception(error)
            self._jobs.clear()
            for state in states:
                if not state.ended:
                    state.generation.deliver(Failed(error))
                state.generation.cancel()
            self._scheduler.remove_ended()
