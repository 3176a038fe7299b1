"""The decoding loop: the one thread that owns the device, round by round."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

from langchain_eft.engine.analysis.kv_memory import KVMemory
from langchain_eft.engine.analysis.term_outputs import Steps
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import (
    DecodingError,
    DeviceLostError,
    EngineClosedError,
    EngineError,
    QueueFullError,
    release_frames,
)
from langchain_eft.engine.events import Failed
from langchain_eft.engine.loading.kv_capacity import count_blocks
from langchain_eft.engine.loading.memory import return_freed_memory
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds.outcomes import RoundResult
from langchain_eft.engine.rounds.runner import InFlight, Runner
from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import Batch, ScheduledRow, Scheduler, decoding_row
from langchain_eft.engine.scheduling.speculator import Speculator
from langchain_eft.engine.scheduling.state_slots import StateSlots
from langchain_eft.engine.stats import EngineStats

T = TypeVar("T")

_TOKENS_AT_ONCE = 256
"""Tokens of prompts in one pass."""

_TOKENS_AT_ONCE_ON_CUDA = 2048
"""Up to some hundred tokens, such a GPU takes as long as for one: it reads weights."""


class DecodingLoop:
    """Runs rounds until it is stopped: schedule, draft, run, accept, deliver.

    Other threads add requests and jobs, and read statistics. Everything else happens on the thread that
    calls `run`, which must be the one that constructs the loop.

    Attributes:
        blocks: The KV memory of all requests.
        memory: The same, for given answers. Only jobs may use it.
        speculator: Decides how requests draft.

    Args:
        family: The loaded models.
        placement: Where they run.
        config: How to use the machine.
        max_model_len: Tokens of the longest request.

    Raises:
        InsufficientMemoryError: KV memory that does not fit beside the weights.
    """

    def __init__(
        self, family: ModelFamily, placement: Placement, config: EngineConfig, max_model_len: int
    ) -> None:
        self.blocks = BlockManager(count_blocks(family, config, max_model_len), config.block_size)
        self.speculator = Speculator(family.bytes_read)
        self._family, self._placement, self._config = family, placement, config
        self._runner = Runner(family, placement, config, self.blocks.num_blocks)
        self._scheduler = Scheduler(
            self.blocks,
            self.speculator,
            config.max_batch_size,
            config.max_num_batched_tokens
            or (_TOKENS_AT_ONCE_ON_CUDA if placement.device.type == "cuda" else _TOKENS_AT_ONCE),
            mixes=self._runner.host_may_look,
            slots=self._slots(),
        )
        self.memory = KVMemory(self._runner.pools, self.blocks)
        self._in_flight: InFlight | None = None
        # The last step had no memory for any row, since scoring has borrowed it.
        self._starved = False
        self._submitted: list[RequestState] = []
        self._jobs: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._totals: Counter[str] = Counter()
        self._stopped = False
        self._lost: str | None = None
        self._process = os.getpid()
        self._wake = threading.Condition()

    def _slots(self) -> StateSlots | None:
        """Slots for recurrent states, if a model has such."""
        pools = [pool for pool in self._runner.states if pool is not None]
        return StateSlots(pools, pools[0].num_slots) if pools else None

    # What other threads call

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, the device has failed, or this process is a fork, without the thread."""
        return self._stopped or self._process != os.getpid()

    def add(self, state: RequestState) -> None:
        """Queue a request.

        Raises:
            QueueFullError: Too many requests wait already.
            EngineClosedError: The loop was stopped.
            DeviceLostError: The device has failed.
        """
        with self._wake:
            self._require_running()
            waiting = len(self._scheduler.waiting) + len(self._submitted)
            if waiting >= self._config.max_queued_requests:
                raise QueueFullError.of(waiting, len(self._scheduler.running))
            self._submitted.append(state)
            self._wake.notify()

    def run_steps(self, steps: Steps[T]) -> T:
        """Do work on the loop's thread, one step between two rounds, and wait for its result.

        Raises:
            DecodingError: The work failed.
            EngineClosedError: The loop was stopped.
            DeviceLostError: The device has failed.
        """
        done = False
        try:
            while True:
                done, result = self._submit(partial(_advance, steps)).result()
                if done:
                    return cast("T", result)
        finally:
            self._abandon(steps, done=done)

    async def arun_steps(self, steps: Steps[T]) -> T:
        """As `run_steps`, without blocking the event loop. Whoever cancels it cancels the steps to come."""
        done = False
        try:
            while True:
                done, result = await asyncio.wrap_future(self._submit(partial(_advance, steps)))
                if done:
                    return cast("T", result)
        finally:
            self._abandon(steps, done=done)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        result: Future[T] = Future()
        with self._wake:
            self._require_running()
            self._jobs.append((work, result))
            self._wake.notify()
        return result

    def _abandon(self, steps: Steps[Any], *, done: bool) -> None:
        """Let work that nobody waits for give back its memory, on the loop's thread."""
        if not done:
            with suppress(EngineError):  # of a loop that has stopped
                self._submit(steps.close)

    def stats(self) -> EngineStats:
        """What the loop does now, and what it has done."""
        totals = ("generated_tokens", "prefilled_tokens", "drafted_tokens", "accepted_tokens")
        with self._wake:
            return EngineStats(
                running=len(self._scheduler.running),
                waiting=len(self._scheduler.waiting) + len(self._submitted),
                blocks=self.blocks.num_blocks,
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
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        if self.stopped:
            raise EngineClosedError("The engine is closed: open it again or build a new model.")

    # What the loop's thread runs

    def run(self) -> None:
        """Decode until `stop` is called or the device is lost, then fail everything that has not ended."""
        try:
            while self._wait_for_work():
                self._run_jobs()
                try:
                    self._step()
                except DeviceLostError:
                    raise
                except Exception as error:  # noqa: BLE001  (what no request has caused ends all of them)
                    self._placement.require_working(str(error))
                    self._fail_all(_failure(error))
        except DeviceLostError as error:
            with self._wake:
                self._lost = str(error)
            self._fail_all(error)
        finally:
            self.stop()  # whatever has ended it: nobody waits for a thread that is gone
            self._fail_all(EngineClosedError("The engine was closed while the request ran."))
            if self._lost is None:  # a lost device takes nothing back
                self._release()

    def _release(self) -> None:
        """Free weights and KV memory, even if callers keep the engine."""
        self._family.close()
        self._runner.free()
        del self._runner
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
                    or self._in_flight
                    or scheduler.running
                    or (scheduler.waiting and not self._starved)
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
        failures: list[str] = []
        for work, result in jobs:
            if not result.set_running_or_notify_cancel():
                continue
            try:
                result.set_result(work())
            except EngineError as error:
                result.set_exception(error)
                failures.append(str(error))
            except Exception as error:  # noqa: BLE001  (handed to the thread that waits for it)
                result.set_exception(DecodingError(f"Scoring failed: {error}"))
                failures.append(str(error))
        if failures:
            self._placement.require_working(failures[0])

    def _step(self) -> None:
        """Schedule, draft, run, accept, deliver. A request that makes it fail fails alone."""
        unread, self._in_flight = self._in_flight, None
        before = unread.drafts if unread else {}
        batch = self._scheduler.schedule(before) or Batch()
        self._runner.table.keep(self._scheduler.running)
        self._starved = not (unread or batch.drafts or batch.chunks)
        if unread or batch.drafts:
            rows = [decoding_row(state) for state in before or batch.drafts if not state.ended]
            self._take(rows, partial(self._decode, batch.drafts, unread))
        if batch.chunks:
            self._take(batch.chunks, partial(self._prefill, batch.chunks))

    def _decode(self, drafts: Mapping[RequestState, Draft], unread: InFlight | None) -> RoundResult:
        """Launch the next round, and read the one that is ready: with overlap, the one before."""
        launched = self._runner.launch(drafts, unread.drafts if unread else {}) if drafts else None
        if self._runner.overlaps:
            self._in_flight, launched = launched, unread
        return self._runner.collect(launched) if launched else RoundResult()

    def _prefill(self, rows: Sequence[ScheduledRow]) -> RoundResult:
        """Run tokens that are known. Errors keep who runs them: the loop, whose runner is freed."""
        # What has ended since it was scheduled may have no memory any more.
        live = [row for row in rows if not row.state.ended]
        return self._runner.prefill(live) if live else RoundResult()

    def _take(self, rows: Sequence[ScheduledRow], run: Callable[[], RoundResult]) -> None:
        """Run rows, take what they draw, and tell those that fail."""
        failures = self._attempt(rows, run) if rows else {}
        isolated = len(failures) < len(rows)
        self._fail({state: _failure(error, isolated=isolated) for state, error in failures.items()})

    def _attempt(
        self, rows: Sequence[ScheduledRow], run: Callable[[], RoundResult]
    ) -> dict[RequestState, Exception]:
        """Run rows and take what they draw. If that fails, each half of them runs for itself.

        Nothing is lost by it: a round changes the state of its requests at its end, and random numbers depend
        on seed and position only.

        Returns:
            The requests that fail without the others too, and why.
        """
        failures: dict[RequestState, Exception] = {}
        result = self._result_or_error(run)
        if isinstance(result, RoundResult):
            try:
                self._accept(rows, result, failures)
            finally:  # whatever fails there, nobody waits for an answer that has ended
                self._deliver(result, failures)
            for row in rows:
                if row.state in result.undrawn:
                    self._start_anew()
                    failures |= self._attempt([row], partial(self._redraw, row))
            return failures
        self._start_anew()
        if len(rows) == 1:
            return {rows[0].state: result}
        halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        first, second = (self._attempt(half, partial(self._prefill, half)) for half in halves)
        return first | second

    def _result_or_error(self, run: Callable[[], RoundResult]) -> RoundResult | Exception:
        """What `run` returns, or what it raises on a device that still works.

        Raises:
            DeviceLostError: The device does not work any more.
        """
        try:
            return run()
        except Exception as error:  # noqa: BLE001  (whatever the device raises ends requests, not the engine)
            release_frames(error)  # they hold the round's tensors
            failure = error
        self._placement.require_working(str(failure))
        return failure

    def _start_anew(self) -> None:
        """Forget a round in flight, which continues rows that have to run again."""
        self._in_flight = None
        self._runner.table.restore(self._scheduler.running)

    def _accept(
        self,
        rows: Sequence[ScheduledRow],
        result: RoundResult,
        failures: dict[RequestState, Exception],
    ) -> None:
        """Learn from a round, append its tokens to the answers, and free what has ended."""
        states = [row.state for row in rows]
        self.speculator.observe(result.outcomes)
        if result.verify_pass and not result.prefilled_tokens:
            self.speculator.observe_costs(states, result.draft_passes, result.verify_pass)
        totals = Counter(prefilled_tokens=result.prefilled_tokens)
        for state, outcome in result.outcomes.items():
            with _failing(state, failures):
                totals["generated_tokens"] += state.accept(outcome)
            totals["drafted_tokens"] += len(outcome.draft_tokens)
            totals["accepted_tokens"] += outcome.num_accepted
        with self._wake:
            self._totals += totals
            self._scheduler.cache_full_blocks(state for state in states if state not in failures)
            self._scheduler.remove_ended()

    def _redraw(self, row: ScheduledRow) -> RoundResult:
        """Run a row that has drawn nothing, without a draft: a NaN in a draft spoils what is before it too.

        Raises:
            DecodingError: Its log p is not finite without a draft either.
        """
        state, result = row.state, self._prefill([row])
        if state not in result.undrawn:
            return result
        for prompt in state.prompts.values():
            self.blocks.forget(prompt.block_table)
        broken = " and of ".join(dict.fromkeys(map(self._family.role, result.undrawn[state])))
        reason, remedy = (
            (
                f"The logits of {broken} are NaN or infinite",
                "check these weights, or use dtype='float32' if their activations overflow",
            )
            if broken
            else (
                "No token has a finite log-probability, though every model's logits are finite,",
                "use smaller weights in `mixture`, or another grammar if there is one",
            )
        )
        raise DecodingError(
            f"{reason} after {len(state.tokens)} tokens, so there is no next token. A retry fails in the "
            f"same way: {remedy}.",
            is_retryable=False,
        )

    def _deliver(self, result: RoundResult, failures: dict[RequestState, Exception]) -> None:
        """Hand events to the callers; last, so that the memory of a finished answer is free by then."""
        for state in result.outcomes:
            with _failing(state, failures):
                state.deliver()

    def _fail(self, failures: Mapping[RequestState, EngineError]) -> None:
        """Free what requests hold, then tell their callers why they failed."""
        with self._wake:
            waited_for = [state for state in failures if not state.generation.cancelled]
            for state in waited_for:
                state.generation.cancel()
            self._scheduler.remove_ended()
        for state in waited_for:
            with suppress(Exception):  # a caller that cannot be told must not stop the loop
                state.generation.deliver(Failed(failures[state]))

    def _fail_all(self, error: EngineError) -> None:
        with self._wake:
            states = [*self._scheduler.running, *self._scheduler.waiting, *self._submitted]
            self._submitted.clear()
            self._in_flight = None
            for _, result in self._jobs:
                if result.set_running_or_notify_cancel():
                    result.set_exception(error)
            self._jobs.clear()
        self._fail(dict.fromkeys((state for state in states if not state.ended), error))


def _advance(steps: Steps[T]) -> tuple[bool, T | None]:
    """Do one step of some work; returns whether it was the last one, and what came of all."""
    try:
        next(steps)
    except StopIteration as stop:
        return True, stop.value
    return False, None


@contextmanager
def _failing(state: RequestState, failures: dict[RequestState, Exception]) -> Iterator[None]:
    """Keep an exception that concerns one request only."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (it ends this request, and no other)
        failures[state] = error


def _failure(error: Exception, *, isolated: bool = False) -> EngineError:
    """What the caller of a request gets for an exception.

    Args:
        error: The exception.
        isolated: Whether other requests of the round went on.
    """
    if isinstance(error, EngineError):
        return error
    reason = str(error).rstrip(".") or type(error).__name__
    advice = (
        "The requests beside it go on, so a retry will likely fail in the same way: change the request."
        if isolated
        else "A retry may help."
    )
    failure = DecodingError(f"Decoding failed: {reason}. {advice}", is_retryable=not isolated)
    failure.__cause__ = error
    return failure
