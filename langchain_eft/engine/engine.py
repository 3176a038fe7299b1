"""The engine: one thread that owns the device, and the registry of engines that are open."""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Generator, Iterable, Mapping
from collections.abc import Sequence as Requests
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, product
from typing import Any, TypeVar

import torch

from langchain_eft.behaviors import Mixture, Recipe, known
from langchain_eft.engine.checkpoints import Progress
from langchain_eft.engine.comparison import Comparison, compare_along
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.decode_runner import DecodeRunner, Flight, decodes_ahead, decodes_statically
from langchain_eft.engine.errors import (
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    EngineError,
    InsufficientMemoryError,
    QueueFullError,
    RequestError,
    RequestTimeoutError,
)
from langchain_eft.engine.formula import Formula, plan
from langchain_eft.engine.grammar import Grammars
from langchain_eft.engine.kv_cache import BlockAllocator
from langchain_eft.engine.loading import load_family
from langchain_eft.engine.memory import free_memory, gib, return_freed_memory
from langchain_eft.engine.models import Term
from langchain_eft.engine.placement import Placement
from langchain_eft.engine.request import (
    Event,
    Failed,
    Finished,
    Generation,
    GenerationRequest,
    TextDelta,
)
from langchain_eft.engine.runner import Round, Runner
from langchain_eft.engine.scheduler import Scheduler
from langchain_eft.engine.scoring import token_logprobs
from langchain_eft.engine.sequence import Sequence
from langchain_eft.engine.speculation import Speculator
from langchain_eft.schedules import weight_at

T = TypeVar("T")

_SCORED_TOGETHER = 2048
"""Tokens of answers in one forward."""

_COUNTED = ("generated_tokens", "prefilled_tokens", "drafted_tokens", "accepted_tokens")


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of what the engine is doing.

    Attributes:
        running: Requests that decode now.
        waiting: Requests in the queue.
        free_blocks: Blocks of KV memory that nobody holds.
        weight_bytes: Memory of all weights, shared ones counted once.
        generated_tokens: Tokens of answers since the engine was opened.
        prefilled_tokens: Tokens of prompts computed since then (those of preempted requests again).
        cached_tokens: Tokens of prompts that did not have to be computed.
        drafted_tokens: Tokens guessed ahead.
        accepted_tokens: Guesses that were right.
        preemptions: How often a request gave up its memory to an older one.
    """

    running: int
    waiting: int
    free_blocks: int
    weight_bytes: int
    generated_tokens: int
    prefilled_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int


class Engine:
    """Decodes requests of one recipe, all in one batch.

    Use `open_engine` to share engines; construct one yourself only to own it.

    Raises:
        EngineError: The recipe's models cannot be loaded or combined.
    """

    def __init__(
        self, recipe: Recipe, config: EngineConfig | None = None, progress: Progress | None = None
    ) -> None:
        self.recipe = recipe
        self.config = config or EngineConfig()
        self._submitted: list[Sequence] = []
        self._errands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._counts: Counter[str] = Counter()
        self._flight: Flight | None = None
        self._closed = False
        self._wake = threading.Condition()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(progress or _silent, ready), name="eft-engine", daemon=True
        )
        self._thread.start()
        ready.result()

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self.tokenizer, len(self._family.vocabulary), self._family.end_ids)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's base, with the recipe's chat template."""
        return self._family.tokenizer

    @property
    def window(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        capacity = self._allocator.num_blocks * self._allocator.block_size
        return min(self._longest, capacity)

    def room(self, *prompts: int) -> int:
        """Tokens that an answer may have; negative where even its prompts do not fit.

        Args:
            prompts: Length of the prompt, or of each of them where the mixture compares several.
        """
        size = self._allocator.block_size
        # Every table but one may leave all but one position of a block empty.
        memory = self._allocator.num_blocks * size - (len(prompts) - 1) * (size - 1) - sum(prompts)
        return min(self._longest - max(prompts), memory // len(prompts))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def stats(self) -> EngineStats:
        """What the engine is doing now."""
        with self._wake:
            return EngineStats(
                running=len(self._scheduler.running),
                waiting=len(self._scheduler.waiting) + len(self._submitted),
                free_blocks=self._allocator.free_blocks,
                weight_bytes=self._family.weight_bytes,
                cached_tokens=self._scheduler.cached_tokens,
                preemptions=self._scheduler.preemptions,
                **{name: self._counts[name] for name in _COUNTED},
            )

    def submit(self, request: GenerationRequest, deliver: Callable[[Event], None]) -> Generation:
        """Start a request; its events are delivered from the engine's thread.

        Raises:
            ContextWindowError: Prompt and answer do not fit the window.
            RecipeError: A mixture that the recipe cannot decode.
            RequestError: Token ids outside the vocabulary, or a grammar that does not compile.
            QueueFullError: Too many requests wait already.
            EngineClosedError: The engine was closed.
        """
        return self._start(self._prepare(request, deliver))

    def _prepare(self, request: GenerationRequest, deliver: Callable[[Event], None]) -> Sequence:
        """Check a request and compile its grammar: all that takes time."""
        self.recipe.check(request.mixture)
        formula = replace(self._formula(request), traced=request.trace)
        prompts = [request.prompt_ids, *request.contexts.values()]
        room = self.room(*map(len, prompts))
        if request.max_tokens > room:
            longest = max(map(len, prompts))
            raise ContextWindowError(longest, request.max_tokens, longest + room)
        for ids in (*prompts, tuple(request.sampling.logit_bias)):
            self._check_token_ids(ids)
        generation = Generation(request, deliver)
        rates = self._speculator.rates(request)
        grammar = self._grammars.compile(request.grammar) if request.grammar else None
        return Sequence(generation, formula, self.tokenizer, self._family.end_ids, rates, grammar)

    def _start(self, sequence: Sequence) -> Generation:
        with self._wake:
            if self._closed:
                raise EngineClosedError("The engine is closed: open it again or build a new model.")
            waiting = len(self._scheduler.waiting) + len(self._submitted)
            if waiting >= self.config.max_waiting:
                raise QueueFullError(waiting, len(self._scheduler.running))
            self._submitted.append(sequence)
            self._wake.notify()
        return sequence.generation

    def stream(
        self, request: GenerationRequest, timeout: float | None = None
    ) -> Generator[TextDelta | Finished, None, None]:
        """Decode a request; closing the iterator cancels it.

        Args:
            request: What to decode.
            timeout: Seconds that the whole answer may take.

        Raises:
            EngineError: As `submit`, when decoding fails, or when time is up.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        yield from _received(self.submit(request, events.put), events, timeout)

    async def astream(
        self,
        request: GenerationRequest,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[TextDelta | Finished]:
        """Decode a request without blocking the event loop; closing or cancelling cancels it.

        Args:
            request: What to decode.
            timeout: Seconds that the whole answer may take.

        Raises:
            EngineError: As `submit`, when decoding fails, or when time is up.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        # A thread prepares, so that nobody waits for it; starting is a moment: nothing cancels it half-way.
        generation = self._start(await asyncio.to_thread(self._prepare, request, deliver))
        try:
            while True:
                try:
                    left = _left(generation, timeout)
                    event = _raise_failure(await asyncio.wait_for(events.get(), left))
                except TimeoutError:
                    raise RequestTimeoutError(timeout) from None
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            generation.cancel()

    def generate(
        self, requests: Requests[GenerationRequest], timeout: float | None = None
    ) -> list[list[TextDelta | Finished]]:
        """Decode requests together; returns the events of each.

        The first one begins alone, so that what the others' prompts have in common with its own is read once.

        Args:
            requests: What to decode.
            timeout: Seconds that each answer may take.

        Raises:
            EngineError: As `stream`. The other answers are then given up.
        """
        first = self.stream(requests[0], timeout)
        begun = [next(first)]
        queues = [queue.SimpleQueue[Event]() for _ in requests[1:]]
        others = []
        try:
            for request, events in zip(requests[1:], queues, strict=True):
                others.append(self.submit(request, events.put))
            answers = [[*begun, *first]]
            for generation, events in zip(others, queues, strict=True):
                answers.append(list(_received(generation, events, timeout)))
            return answers
        finally:
            first.close()
            for generation in others:
                generation.cancel()

    async def agenerate(
        self,
        requests: Requests[GenerationRequest],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[list[TextDelta | Finished]]:
        """As `generate`, without blocking the event loop; cancelling it cancels all requests."""
        first = self.astream(requests[0], timeout)
        begun = [await anext(first)]
        others = (_collected(self.astream(request, timeout)) for request in requests[1:])
        tasks = [asyncio.ensure_future(answer) for answer in (_collected(first), *others)]
        try:
            rest, *answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [[*begun, *rest], *answers]

    def score(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """The implicit reward of answers: `sum_t log F(y_t | ...) - log S(y_t | ...)` of one behaviour.

        A fine-tuned model is its reference tilted towards a reward (Mitchell et al. 2023, section 3.2); this
        is that reward in units of the fine-tuning's beta, up to a constant that depends on the prompt alone.

        Args:
            behavior: Which behaviour.
            prompt: Token ids, at least one.
            answers: Token ids of each answer, at least one each.
            contexts: What F and S read instead of the prompt, by name.

        Raises:
            RecipeError: A behaviour that the recipe does not know.
            RequestError: Nothing to score, a prompt that is missing, or token ids outside the vocabulary.
            ContextWindowError: Prompt and answer do not fit the window.
            EngineClosedError: The engine was closed.
        """
        self.recipe.check(Mixture.of({behavior: 1.0}))
        prompts = {"": prompt, **(contexts or {})}
        terms = self._family.behaviors[behavior]
        self._require_contexts(terms, prompts)
        pair = [(term, prompts[term.context]) for term in terms]
        for answer, (_, ids) in product(answers, pair):
            self._check_scorable(ids, answer)
        batches = (self._on_device(partial(self._rewards, pair, some)) for some in _batches(answers))
        return [reward for rewards in batches for reward in rewards]

    def compare(self, request: GenerationRequest, answer: tuple[int, ...]) -> Comparison:
        """How the base, a behaviour's tuned model and its reference agree along a given answer.

        Args:
            request: What would be decoded: a mixture of one behaviour.
            answer: Token ids, at least one.

        Raises:
            RecipeError: A behaviour that the recipe does not know.
            RequestError: No tokens, ids outside the vocabulary, or another mixture.
            ContextWindowError: Prompt and answer do not fit the window.
            EngineClosedError: The engine was closed.
        """
        self.recipe.check(request.mixture)
        formula = self._formula(request)
        if len(formula.behaviors) != 1:
            raise RequestError(f"mixture={request.mixture.as_json()} is not of one behaviour: name one.")
        (tuned, reference, weight), *_ = formula.behaviors
        texts = {**request.contexts, "": request.prompt_ids}
        voices = [(term, texts[term.context]) for term in (formula.base, tuned, reference)]
        for _, prompt in voices:
            self._check_scorable(prompt, answer)
        weights = [weight_at(weight, position) for position in range(len(answer))]
        return self._on_device(
            partial(compare_along, self._family, voices, weights, answer, request.sampling)
        )

    def _check_scorable(self, prompt: tuple[int, ...], answer: tuple[int, ...]) -> None:
        if not prompt or not answer:
            raise RequestError("An answer, or its prompt, has no tokens: give some text to score.")
        if len(prompt) + len(answer) > self.window:
            raise ContextWindowError(len(prompt), len(answer), self.window)
        self._check_token_ids((*prompt, *answer))
        strange = [token for token in answer if not self._family.vocabulary[token]]
        if strange:
            raise RequestError(
                f"Token id {strange[0]} does not mean the same in all models, so that an answer with it has "
                "no log-probability: leave it out."
            )

    def _rewards(
        self, pair: Requests[tuple[Term, tuple[int, ...]]], answers: Requests[tuple[int, ...]]
    ) -> list[float]:
        tuned, reference = (token_logprobs(self._family, term, ids, answers) for term, ids in pair)
        return [float((t - r).sum()) for t, r in zip(tuned, reference, strict=True)]

    def _on_device(self, work: Callable[[], T]) -> T:
        """Run something on the engine's thread, between two rounds."""
        result: Future[T] = Future()
        with self._wake:
            if self._closed:
                raise EngineClosedError("The engine is closed: open it again or build a new model.")
            self._errands.append((work, result))
            self._wake.notify()
        return result.result()

    def close(self) -> None:
        """Stop the thread, fail what is running, and free the weights. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        _forget(self)

    def _formula(self, request: GenerationRequest) -> Formula[Term]:
        """The mixture as terms; contexts with one text are one.

        Raises:
            RecipeError: A mixture that cannot be decoded.
            RequestError: A behaviour whose context is missing.
        """
        first: dict[tuple[int, ...], str] = {}
        prompts = [("", request.prompt_ids), *request.contexts.items()]
        names = {name: first.setdefault(ids, name) for name, ids in prompts}
        weights, behaviors = request.mixture.active(), self._family.behaviors
        self._require_contexts(chain([self._family.base], *(behaviors[name] for name in weights)), names)

        def placed(term: Term) -> Term:
            return replace(term, context=names.get(term.context, term.context))

        base = placed(self._family.base)

        return plan(
            base,
            {name: (placed(tuned), placed(reference)) for name, (tuned, reference) in behaviors.items()},
            weights,
            request.upscale_strength,
            request.upscale_top_p,
            lambda term: self._family.bytes_read([term]),
            lambda term: replace(term, context=base.context),
            unscaled=self._family.unscaled is not None,
        )

    def _require_contexts(self, terms: Iterable[Term], prompts: Container[str]) -> None:
        missing = {term.context for term in terms if term.context not in prompts}
        if missing:
            raise RequestError(
                f"`contexts` lacks {known(missing)}: behaviours that compare two prompts, and the base where "
                "it has a template of its own, read what stands there by their name."
            )

    def _check_token_ids(self, ids: tuple[int, ...]) -> None:
        size = len(self._family.vocabulary)
        outside = [i for i in ids if not 0 <= i < size]
        if outside:
            raise RequestError(
                f"Token id {outside[0]} is outside the vocabulary of {size} tokens: use ids of `tokenizer`."
            )

    def _run(self, progress: Progress, ready: Future[None]) -> None:
        # The thread that decodes also loads: a second thread with its own team of CPU workers would leave
        # more workers than cores, and OpenMP then lets them sleep between products (1.5x slower decoding).
        try:
            self._load(progress)
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits for the engine)
            return_freed_memory()
            ready.set_exception(error)
            return
        ready.set_result(None)
        self._loop()

    def _load(self, progress: Progress) -> None:
        config = self.config
        placement = Placement.of(config)
        if placement.device.type == "cuda":
            torch.cuda.set_device(placement.device)  # streams and events of this thread belong there
        self._family = load_family(self.recipe, placement, progress)
        return_freed_memory()  # copies that loading made
        try:
            self._allocate(placement)
        except BaseException:
            self._family.close()
            raise

    def _allocate(self, placement: Placement) -> None:
        """Make room for requests beside the weights."""
        config = self.config
        self._longest = min(config.max_model_len or self._family.window, self._family.window)
        self._allocator = BlockAllocator(self._count_blocks(), config.block_size)
        self._runner = Runner(self._family, self._allocator.num_blocks, config.block_size)
        self._scheduler = Scheduler(self._allocator, config.max_batch_size, config.prefill_chunk)
        self._speculator = Speculator(self._family.bytes_read)
        self._ahead = decodes_ahead(config, placement)
        self._decoder = None
        if decodes_statically(config, placement):
            self._decoder = DecodeRunner(self._family, self._runner.pools, self._allocator.num_blocks, config)

    def _loop(self) -> None:
        try:
            while self._take_submitted():
                self._run_errands()
                self._round()
        finally:
            self._fail_all(EngineClosedError("The engine was closed while the request ran."))
            self._release()

    def _release(self) -> None:
        """Free weights and KV memory, even if callers keep the engine."""
        self._family.close()
        for pool in self._runner.pools:
            pool.free()
        self._decoder = None
        return_freed_memory()

    def _take_submitted(self) -> bool:
        """Wait for something to do; False once the engine is closed."""
        with self._wake:
            scheduler = self._scheduler
            while not (
                self._closed
                or self._submitted
                or self._errands
                or self._flight
                or scheduler.running
                or scheduler.waiting
            ):
                self._wake.wait()
            for sequence in self._submitted:
                self._scheduler.add(sequence)
            self._submitted.clear()
            self._scheduler.remove_ended()
            return not self._closed

    def _run_errands(self) -> None:
        with self._wake:
            errands, self._errands = self._errands, []
        for work, result in errands:
            try:
                result.set_result(work())
            except Exception as error:  # noqa: BLE001  (handed to the thread that waits for it)
                result.set_exception(DecodingError(f"Scoring failed: {error}"))

    def _round(self) -> None:
        try:
            if self._flight is None:
                self._begin()
            else:
                self._go_on(self._flight)
        except Exception as error:  # noqa: BLE001  (whatever the device raises ends the requests, not the engine)
            failure = DecodingError(f"Decoding failed: {error}")
            failure.__cause__ = error
            self._fail_all(failure)

    def _begin(self) -> None:
        """A round of whoever is to run now; the host knows all their tokens."""
        rows = self._scheduler.schedule()
        if not rows:
            return
        drafts = self._speculator.plan(rows, self._scheduler)
        if self._decoder is None or not all(map(self._decoder.takes, rows)):
            prefilled = sum(row.tokens for row in rows if not row.decodes)  # afterwards nothing is pending
            self._take_in([row.sequence for row in rows], self._runner.step(rows, drafts), prefilled)
            return
        self._flight = self._decoder.launch(drafts)
        if not self._ahead:
            self._go_on(self._flight)

    def _go_on(self, flight: Flight) -> None:
        """Launch the next round if nothing in the last one is needed for that; then read the last one."""
        assert self._decoder is not None  # noqa: S101  (who else has launched it)
        following = self._speculator.plan_ahead(flight.drafts, self._scheduler) if self._ahead else None
        self._flight = self._decoder.launch(following, flight) if following else None
        done = self._decoder.land(flight)
        self._take_in([outcome.sequence for outcome in done.outcomes], done, 0)

    def _take_in(self, sequences: list[Sequence], done: Round, prefilled: int) -> None:
        """Learn from a round, append its tokens, and hand them over."""
        self._speculator.observe(done.outcomes)
        if not prefilled and done.verified:
            self._speculator.observe_costs(sequences, done.draft_passes, done.verified)
        counts = Counter(prefilled_tokens=prefilled)
        for outcome in done.outcomes:
            drafted = len(outcome.draft.tokens)
            counts["generated_tokens"] += outcome.sequence.accept(
                outcome.tokens, drafted, outcome.logprobs, outcome.traces
            )
            counts["drafted_tokens"] += len(outcome.draft.tokens)
            counts["accepted_tokens"] += len(outcome.tokens) - 1
        with self._wake:
            self._counts += counts
            for sequence in sequences:
                self._scheduler.remember(sequence)
            self._scheduler.remove_ended()
        for outcome in done.outcomes:  # last, so that whoever sees the end of an answer finds its memory free
            outcome.sequence.deliver()

    def _fail_all(self, error: EngineError) -> None:
        with self._wake:
            sequences = [*self._scheduler.running, *self._scheduler.waiting, *self._submitted]
            self._submitted.clear()
            self._flight = None
            for _, result in self._errands:
                result.set_exception(error)
            self._errands.clear()
            for sequence in sequences:
                if not (sequence.finished or sequence.generation.cancelled):
                    sequence.generation.deliver(Failed(error))
                sequence.generation.cancel()
            self._scheduler.remove_ended()

    def _count_blocks(self) -> int:
        """Blocks of the stated budget, or of the stated share of free memory, at most what can be used."""
        size, tokens = self.config.block_size, self.config.kv_cache_tokens
        per_token: Counter[torch.device] = Counter()
        for model in self._family.models:
            for device, count in model.bytes_per_token.items():
                per_token[device] += model.variants * count
        free = {device: free_memory(device) for device in per_token}
        if tokens is None:
            usable = self.config.max_batch_size * self._longest
            share = self.config.kv_cache_fraction
            fitting = min(int(free[device] * share) // count for device, count in per_token.items())
            tokens = max(min(fitting, usable), size)
        for device, count in per_token.items():
            if tokens * count > free[device]:
                raise InsufficientMemoryError(
                    f"{gib(free[device])} are free on {device} after loading "
                    f"{gib(self._family.weight_bytes)} of weights, and keys and values of {tokens} tokens "
                    f"take {gib(tokens * count)}: lower `kv_cache_tokens`, or use a smaller model or dtype."
                )
        return -(-tokens // size)


def _batches(answers: Requests[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Runs of answers that are scored in one forward: few enough tokens, or one answer that has more."""
    batches: list[list[tuple[int, ...]]] = []
    for answer in answers:
        if not batches or sum(map(len, [*batches[-1], answer])) > _SCORED_TOGETHER:
            batches.append([])
        batches[-1].append(answer)
    return batches


def _silent(_: str) -> None:
    """The default progress callback."""


def _left(generation: Generation, timeout: float | None) -> float | None:
    """Seconds that an answer may still take."""
    return None if timeout is None else max(generation.submitted + timeout - time.perf_counter(), 0)


def _received(
    generation: Generation, events: queue.SimpleQueue[Event], timeout: float | None
) -> Generator[TextDelta | Finished, None, None]:
    """The events of a request that has begun; closing the generator cancels it."""
    try:
        while True:
            try:
                event = _raise_failure(events.get(timeout=_left(generation, timeout)))
            except queue.Empty:
                raise RequestTimeoutError(timeout) from None
            yield event
            if isinstance(event, Finished):
                return
    finally:
        generation.cancel()


async def _collected(events: AsyncIterator[TextDelta | Finished]) -> list[TextDelta | Finished]:
    return [event async for event in events]


def _raise_failure(event: Event) -> TextDelta | Finished:
    if isinstance(event, Failed):
        raise event.error
    return event


_open: dict[tuple[Recipe, EngineConfig], Engine] = {}
_opening = threading.RLock()


def find_engine(recipe: Recipe, config: EngineConfig) -> Engine | None:
    """The open engine of a recipe, without waiting for one that is being opened."""
    return _open.get((recipe, config))


def open_engine(
    recipe: Recipe, config: EngineConfig | None = None, progress: Progress | None = None
) -> Engine:
    """The process's engine for a recipe, opened on first use and shared by everyone who names the recipe.

    Args:
        recipe: Which weights.
        config: How to use the machine.
        progress: Told what is being waited for while the engine opens.

    Raises:
        EngineError: The engine cannot be opened.
    """
    config = config or EngineConfig()
    with _opening:
        engine = find_engine(recipe, config)
        if engine is None:
            engine = _open[recipe, config] = Engine(recipe, config, progress)
        return engine


def _forget(engine: Engine) -> None:
    with _opening:
        for key in [key for key, value in _open.items() if value is engine]:
            del _open[key]


@atexit.register
def close_all() -> None:
    """Close every open engine; runs at exit."""
    for engine in list(_open.values()):
        engine.close()


# Threads do not survive a fork: a child opens engines of its own.
os.register_at_fork(after_in_child=_open.clear)
