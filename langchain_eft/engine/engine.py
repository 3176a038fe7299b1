"""The engine: a recipe's models behind four calls: submit, stream, generate, score."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from langchain_eft.engine.analysis.comparison import ModelComparison, compare_on_answer
from langchain_eft.engine.analysis.scoring import ScoredPrompt, answer_logprobs, rewards
from langchain_eft.engine.analysis.term_outputs import Steps
from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import RequestError, release_frames
from langchain_eft.engine.events import Event
from langchain_eft.engine.input_processor import InputProcessor
from langchain_eft.engine.loading.family import load_family
from langchain_eft.engine.loading.memory import return_freed_memory
from langchain_eft.engine.loop import DecodingLoop
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import AnswerScores, Generation, GenerationRequest, GivenAnswers
from langchain_eft.engine.stats import EngineStats


class Engine(BaseEngine):
    """Decodes requests of one recipe, all in one batch.

    Use `open_engine` to share engines. Construct one yourself only to own it.

    Args:
        recipe: Which models, and which behaviors they make.
        config: How to use the machine.
        progress: Called with a short message for every step of loading.
        on_close: Called once the engine is closed.

    Raises:
        EngineError: The recipe's models cannot be loaded or combined.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: EngineConfig | None = None,
        progress: Progress = silent,
        on_close: Callable[[Engine], None] | None = None,
    ) -> None:
        self._recipe = recipe
        self.config = config or EngineConfig()
        self._on_close = on_close
        self._closing = threading.Event()
        self._ready: Future[tuple[DecodingLoop, InputProcessor]] = Future()
        self._thread = threading.Thread(
            target=_load_and_run,
            args=(recipe, self.config, _until(self._closing, progress), self._ready),
            name="eft-engine",
            daemon=True,
        )
        atexit.register(self._close_at_exit)
        self._thread.start()
        try:
            self._loop, self._inputs = self._ready.result()
        except BaseException:  # loading failed, or Ctrl-C: then it must not go on
            self.close()
            raise

    @property
    def recipe(self) -> Recipe:
        """The models, and the behaviors that can be mixed."""
        return self._recipe

    @property
    def family(self) -> ModelFamily:
        """The loaded models, and what their token ids mean."""
        return self._inputs.family

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's base, with the recipe's chat template."""
        return self.family.tokenizer

    @property
    def capacity(self) -> Capacity:
        """How many tokens prompts and answers may have."""
        return self._inputs.capacity

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._loop.stopped

    def stats(self) -> EngineStats:
        """What the engine does now, and what it has done."""
        return self._loop.stats()

    # Requests

    def _prepare(
        self, request: GenerationRequest, deliver: Callable[[Event], None]
    ) -> Callable[[], Generation]:
        state = self._inputs.process(request, deliver)

        def start() -> Generation:
            self._loop.add(state)
            return state.generation

        return start

    # Given answers

    def score(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """The implicit reward of answers, as `BaseEngine.score`."""
        return self._loop.run_steps(self._rewarding(behavior, prompt, answers, contexts))

    async def ascore(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """As `score`, without blocking the event loop or keeping a thread."""
        steps = await asyncio.to_thread(self._rewarding, behavior, prompt, answers, contexts)
        return await self._loop.arun_steps(steps)

    def _rewarding(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None,
    ) -> Steps[list[float]]:
        """Check what is scored by `score`."""
        self.recipe.check(Mixture.of({behavior: 1.0}))
        prompts = {"": prompt, **(contexts or {})}
        self._inputs.require_prompts(self.family.behaviors[behavior], prompts)
        terms = self._inputs.activated(behavior, prompts)
        tuned, reference = ((term, prompts[term.prompt_name]) for term in terms)
        self._inputs.check_scorable([tuned[1], reference[1]], answers)
        return rewards(self.family, self._loop.memory, tuned, reference, tuple(map(tuple, answers)))

    def answer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """Log p of every token of given answers, as `BaseEngine.answer_logprobs`."""
        return self._loop.run_steps(self._scoring(given))

    async def aanswer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """As `answer_logprobs`, without blocking the event loop."""
        return await self._loop.arun_steps(await asyncio.to_thread(self._scoring, given))

    def _scoring(self, given: Sequence[GivenAnswers]) -> Steps[AnswerScores]:
        """Check what is scored, and write its mixtures as formulas."""
        if not given:
            raise RequestError("There are no answers to score: give at least one.")
        prompts = []
        for each in given:
            request = each.request
            self.recipe.check(request.mixture)
            formula = self._inputs.formula(request)
            texts = {**request.contexts, "": request.prompt_ids}
            read = {term.prompt_name: texts[term.prompt_name] for term in formula.terms}
            self._inputs.check_scorable(read.values(), each.answers)
            prompts.append(ScoredPrompt(formula, read, each.answers))
        return answer_logprobs(self.family, self._loop.memory, prompts)

    def compare(self, request: GenerationRequest, answer: tuple[int, ...]) -> ModelComparison:
        """How the base, a behavior's tuned model and its reference agree along a given answer.

        Args:
            request: What would be decoded: a mixture of one behavior.
            answer: Token ids, at least one.

        Raises:
            RecipeError: A behavior that the recipe lacks.
            RequestError: No tokens, ids outside the vocabulary, or another mixture.
            ContextWindowError: Prompt and answer do not fit.
            EngineClosedError: The engine was closed.
        """
        self.recipe.check(request.mixture)
        formula = self._inputs.formula(request)
        if len(formula.behaviors) != 1:
            raise RequestError(
                f"A comparison needs one behavior, got mixture={request.mixture.as_json()}: name one."
            )
        (tuned, reference, weight), *_ = formula.behaviors
        prompts = {**request.contexts, "": request.prompt_ids}
        terms = [(term, prompts[term.prompt_name]) for term in (formula.base, tuned, reference)]
        self._inputs.check_scorable([prompt for _, prompt in terms], [answer])
        return self._loop.run_steps(
            compare_on_answer(self.family, self._loop.memory, terms, weight, answer, request.sampling)
        )

    def close(self) -> None:
        """Stop the thread, fail what is running, and free the weights. Idempotent.

        An engine that is still opening ends at its next progress message.
        """
        self._closing.set()
        self._ready.add_done_callback(_stop_loop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self._close_at_exit)
        if self._on_close:
            self._on_close(self)

    def _close_at_exit(self) -> None:
        """Close before the interpreter exits: it aborts the process if a thread is still inside torch."""
        if not self._thread.is_alive():  # as in the child of a fork, which has no such thread
            return
        try:
            self.close()
        except KeyboardInterrupt:
            os._exit(130)


def _until(closing: threading.Event, progress: Progress) -> Progress:
    """Progress messages, of which the first after `closing` is set ends the thread that sends it."""

    def report(message: str) -> None:
        if closing.is_set():
            raise SystemExit
        progress(message)

    return report


def _stop_loop(ready: Future[tuple[DecodingLoop, InputProcessor]]) -> None:
    """Stop the loop of an engine that has opened; one that failed to open has none."""
    if not ready.exception():
        ready.result()[0].stop()


def _load_and_run(
    recipe: Recipe,
    config: EngineConfig,
    progress: Progress,
    ready: Future[tuple[DecodingLoop, InputProcessor]],
) -> None:
    """The engine's thread: load the models, then decode."""
    # The thread that decodes also loads: a second thread with CPU workers of its own would leave more workers
    # than cores, and OpenMP then lets them sleep between products (1.5x slower decoding).
    try:
        placement = Placement.of(config)
        placement.make_current()
        placement.require_working("before models are loaded")
        family = load_family(recipe, placement, progress)
        return_freed_memory()  # copies that loading made
        longest = min(config.max_model_len or family.window, family.window)
        try:
            loop = DecodingLoop(family, placement, config, longest)
            capacity = Capacity(
                max_model_len=longest, num_blocks=loop.blocks.num_blocks, block_size=config.block_size
            )
            inputs = InputProcessor(recipe, family, capacity, loop.speculator.initial_rates)
        except BaseException:
            family.close()
            raise
    except BaseException as error:  # noqa: BLE001  (handed to the thread that waits for the engine)
        release_frames(error)
        return_freed_memory()
        ready.set_exception(error)
        return
    ready.set_result((loop, inputs))
    del ready, inputs, family
    loop.run()
