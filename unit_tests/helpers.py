import asyncio
import inspect
import os
import random
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from langchain_eft.engine.analysis.kv_memory import KVMemory
from langchain_eft.engine.analysis.scoring import ScoredPrompt, answer_logprobs
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.decoding import distributions
from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.loop import DecodingLoop
from langchain_eft.engine.models import placement
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.plan import Plan
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams
from langchain_eft.engine.rounds import runner, sampler
from langchain_eft.engine.rounds.inputs import Rows
from langchain_eft.engine.scheduling.block_manager import BlockManager
from unit_tests.tiny import KINDS

GREEDY = SamplingParams(temperature=0)
FUZZ = int(os.environ.get("LANGCHAIN_EFT_FUZZ", "1"))
"""How many times as many examples generated tests draw."""


def request(ids, mixture=None, sampling=GREEDY, max_tokens=32, **kwargs) -> GenerationRequest:
    return GenerationRequest(
        prompt_ids=tuple(ids),
        mixture=Mixture.of(mixture or {}),
        sampling=sampling,
        max_tokens=max_tokens,
        **kwargs,
    )


def slow(*values) -> list:
    """Parameters of tests that `make quick` leaves out."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def full(*values) -> list:
    """Parameters of tests that only `make test-full` runs."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]


def every_family(function):
    """Run a test, or all tests of a class, on each tiny family."""
    return pytest.mark.parametrize("family", KINDS, indirect=True)(function)


def every_family_with(name, first, *others):
    """Run a test with each value on the first tiny family; on the second, all but `first` only in full."""
    values = [(kind, first) for kind in KINDS]
    for kind, mark in zip(KINDS, (pytest.mark.slow, pytest.mark.full), strict=True):
        values += [pytest.param(kind, value, marks=mark) for value in others]
    return pytest.mark.parametrize(("family", name), values, indirect=["family"])


def term_logprobs(family, term, prompt, answer) -> torch.Tensor:
    """[len(answer)] log-probabilities of an answer's tokens under one term."""
    alone = build_formula(term, {}, {})
    scored = ScoredPrompt(alone, {term.prompt_name: tuple(prompt)}, (tuple(answer),))
    return torch.tensor(finished(answer_logprobs(family, no_memory(family), [scored])).logprobs[0][0])


def no_memory(family) -> KVMemory:
    """Memory without room, so that given answers have memory of their own."""
    return KVMemory([KVPool(0) for _ in family.models], BlockManager(0, 16))


def finished(steps):
    """The result of work that is done without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


class Recorder:
    """Collects what the engine delivers for one request."""

    def __init__(self) -> None:
        self.events = []

    def __call__(self, event) -> None:
        self.events.append(event)

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))

    @property
    def tokens(self) -> list[int]:
        return [i for e in self.events if isinstance(e, TextDelta) for i in e.tokens]

    @property
    def ended(self) -> bool:
        return bool(self.events) and not isinstance(self.events[-1], TextDelta)


def answer(engine, request) -> tuple[str, Finished]:
    """Decode one request: its text and its end."""
    events = list(engine.stream(request))
    return "".join(e.text for e in events[:-1]), events[-1]


def greedy_answers(engine, prompts, mixture, steps=8) -> list[list[int]]:
    """Tokens of greedy answers of several prompts, decoded together, with drafts."""
    streams = [engine.stream(request(p, mixture, max_tokens=steps, speculation=3)) for p in prompts]
    return [[token for event in stream for token in getattr(event, "tokens", ())] for stream in streams]


def random_prompts(count, seed=0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(4, 100) for _ in range(rng.randrange(1, 50))] for _ in range(count)]


def flip_bytes(file: Path, seed: int) -> None:
    """Change one to three bytes of a file, every other time near its beginning."""
    rng, content = random.Random(seed), bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(min(len(content), 4096) if seed % 2 else len(content))] = rng.randrange(256)
    file.write_bytes(content)


def text_of(engine, tokens) -> str:
    """The text of an answer's tokens."""
    return engine.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


def endless() -> SamplingParams:
    """Sampling that never ends the answer."""
    return GREEDY.model_copy(update={"logit_bias": {0: -100.0}})


PATIENCE = 300
"""Seconds that a test waits for what must happen: a machine can be busy."""


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"Not within {PATIENCE} s: {inspect.getsource(condition).strip()}"
        time.sleep(0.002)


async def await_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"Not within {PATIENCE} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.002)


KINDS_OF_ROUNDS = ("compact", "padded", "overlapped")
"""Those of a CPU, and those of a GPU, read at once or one behind."""


@contextmanager
def kind_of_rounds(kind):
    """Engines that open meanwhile run rounds of one of the `KINDS_OF_ROUNDS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "host_may_look", lambda _: kind == "compact")
        patch.setattr(runner, "overlaps_rounds", lambda _: kind == "overlapped")
        yield


@contextmanager
def engine_of(recipe, kind="compact", **settings):
    """An engine on this CPU with rounds of a kind."""
    with kind_of_rounds(kind):
        engine = Engine(recipe, EngineConfig(device="cpu", **settings))
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def watched_rounds(watch):
    """Call `watch(rows, run)` for every pass over prompts and every round; `run()` returns what it draws."""
    attempt = DecodingLoop._attempt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DecodingLoop,
            "_attempt",
            lambda self, rows, run: attempt(self, rows, lambda: watch(rows, run)),
        )
        yield


@contextmanager
def failing_rounds(message):
    """Whatever runs fails."""

    def fail(rows, run):
        raise RuntimeError(message)

    with watched_rounds(fail):
        yield


@contextmanager
def failing_rows(fails, error):
    """Whatever runs raises `error` if `fails(states)`, for the requests that draw in it."""
    write = Rows.write

    def look(rows, *args):
        if fails(rows.states):
            raise error
        write(rows, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "write", look)
        yield


@contextmanager
def poisoned(engine, term, token, position):
    """The model of a term turns a token at a position into NaN, and with it all that is read after it."""
    body = engine.family.models[term.model].module.base_model
    ids = []

    def look(module, args):
        ids[:] = args

    def spoil(module, args, kwargs):
        states, positions = [*args, *kwargs.values()]
        states.masked_fill_(((ids[0] == token) & (positions == position))[..., None], float("nan"))

    hooks = (
        body.embed_tokens.register_forward_pre_hook(look),
        body.rotary_emb.register_forward_pre_hook(spoil, with_kwargs=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def without_plans(monkeypatch):
    """Let models on this CPU run their layers one by one, as a GPU does."""
    monkeypatch.setattr(Plan, "of", lambda *_: None)


@contextmanager
def engine_with(family, **rules):
    """An engine that draws by other rules, such as wrong ones."""
    settings = {"kv_cache_tokens": 4096, "block_size": 4, "max_num_batched_tokens": 32}
    with pytest.MonkeyPatch.context() as patch:
        for name, rule in rules.items():
            patch.setattr(distributions if hasattr(distributions, name) else sampler, name, rule)
        with engine_of(family.recipe, **settings, max_queued_requests=2000) as engine:
            yield engine


def keep_every_draft_token(p, q, samples, seeds, positions):
    """A wrong rule of acceptance."""
    return samples


def values(weight) -> torch.Tensor:
    """The numbers of a packed weight, [out, in], by its product with the identity."""
    return weight.product(torch.eye(weight.shape[1])).t()


def counted_tokens(monkeypatch) -> list[int]:
    """A list that receives the number of tokens of each forward pass from now on."""
    counts, run = [], CausalModel.__call__

    def counting(model, batch, *args, **kwargs):
        counts.append(batch.ids.numel())
        return run(model, batch, *args, **kwargs)

    monkeypatch.setattr(CausalModel, "__call__", counting)
    return counts


def counted_preparing(engine, monkeypatch) -> list[int]:
    """A list that receives, for each request from now on, how many are prepared at that moment."""
    now, counts, prepare = 0, [], engine._prepare

    def counting(*args):
        nonlocal now
        now += 1
        counts.append(now)
        time.sleep(0.005)
        now -= 1
        return prepare(*args)

    monkeypatch.setattr(engine, "_prepare", counting)
    return counts


@contextmanager
def without_kernels():
    """Engines that open meanwhile cannot compile kernels for the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "can_compile", lambda: False)
        yield
