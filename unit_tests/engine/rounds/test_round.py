"""Rounds of every kind draw the same tokens, and the shape of one decides its operations."""

import random
import threading
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.loop import DecodingLoop
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds import model_pass, runner
from langchain_eft.engine.rounds import shape as shapes_module
from langchain_eft.engine.rounds.cuda_graphs import Graphs
from langchain_eft.engine.rounds.round import Round
from unit_tests.engine.scheduling.test_speculator import MIXTURES, PROMPT, answer_as_alone, run
from unit_tests.helpers import (
    GREEDY,
    Recorder,
    answer,
    engine_of,
    every_family_with,
    full,
    kind_of_rounds,
    request,
    wait_until,
    without_plans,
)

SETTINGS = {"kv_cache_tokens": 4096, "block_size": 4, "max_num_batched_tokens": 32}
WORD = 'start: "' + "".join(map(chr, range(65, 73))) + '" /[a-d]{3,12}/'


@pytest.fixture(scope="module", autouse=True)
def short_contexts():
    """With low bounds of the contexts, more shapes occur."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes_module, "MIN_CONTEXT", 32)
        yield


@pytest.fixture(scope="module", params=["padded", "overlapped"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def static(kind, family):
    with engine_of(family.recipe, kind, **SETTINGS) as engine:
        yield engine


@every_family_with("mixture", MIXTURES[1], MIXTURES[3])
def test_greedy_text_is_the_reference_loops_for_every_draft_length(kind, static, reference, mixture):
    expected = reference.greedy(PROMPT, mixture, 10)
    lengths = range(9) if kind == "overlapped" else (2, 7)
    for draft in (*lengths, "auto", "off"):
        tokens, end = run(static, mixture=mixture, tokens=10, speculation=draft)
        assert tokens == expected, draft
        assert end.completion_tokens == end.accepted_tokens + end.verify_passes or end.reason == "stop"
    assert static.stats().free_blocks == 4096 // 4


def work():
    """Requests of every kind, all for one batch."""
    samplings = [
        GREEDY,
        SamplingParams(seed=11),
        SamplingParams(temperature=0.8, top_p=0.8, seed=12),
        SamplingParams(temperature=1.2, top_k=20, min_p=0.02, repetition_penalty=1.2, seed=13),
        SamplingParams(frequency_penalty=0.5, presence_penalty=0.3, logit_bias={40: 3.0}, seed=14),
        SamplingParams(temperature=0, repetition_penalty=1.3),
        SamplingParams(temperature=1.1, top_k=3, top_p=0.7, seed=16),
    ]
    extras = [
        {},
        {"upscale_strength": 1.5},
        {"upscale_top_p": 0.6},
        {"grammar": WORD},
        {"top_logprobs": 3},
        {"upscale_strength": 0.0},
    ]
    rng = random.Random(4)
    kinds = []
    for i in range(21):
        prompt = [rng.randrange(4, 250) for _ in range(rng.randrange(1, 30))] * (1 + i % 3)
        extra = extras[i % len(extras)]
        mixtures = [
            m
            for m in MIXTURES
            if not ("full" in m and len(m) > 1 and extra.keys() & {"upscale_strength", "upscale_top_p"})
        ]
        kinds.append((prompt, mixtures[i % len(mixtures)], samplings[i % len(samplings)], extra))
    return kinds


def decoded(engine, kinds, draft, *, together):
    """Tokens and log-probabilities of every kind."""
    recorders = []
    for prompt, mixture, sampling, extra in kinds:
        recorders.append(Recorder())
        engine.submit(request(prompt, mixture, sampling, 10, speculation=draft, **extra), recorders[-1])
        if not together:
            wait_until(lambda: recorders[-1].ended)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [
        (recorder.tokens, [entry for e in recorder.events[:-1] for entry in e.logprobs])
        for recorder in recorders
    ]


@pytest.fixture(scope="module")
def expected(engine):
    return decoded(engine, work(), "off", together=True)


@pytest.mark.slow
@pytest.mark.parametrize("draft", [3, *full("off", "auto")])
def test_every_kind_of_request_gets_the_tokens_of_compact_rounds_alone_and_in_a_batch(
    static, expected, draft
):
    for kinds, together in ((work(), True), (work()[:6], False)):
        actual, compact = decoded(static, kinds, draft, together=together), expected[: len(kinds)]
        assert [tokens for tokens, _ in actual] == [tokens for tokens, _ in compact]
        for (_, logprobs), (_, others) in zip(actual, compact, strict=True):
            assert len(logprobs) == len(others)
            for a, b in zip(logprobs, others, strict=True):
                assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
                assert [value for _, value in a.top] == pytest.approx([value for _, value in b.top], abs=1e-4)
                assert all(x >= y for (_, x), (_, y) in pairwise(a.top))


@pytest.mark.slow
def test_prompt_lookup_drafts_in_overlapped_rounds_too(static):
    prompt = [50, 60, 70] * 5
    plain, _ = run(static, prompt, {}, GREEDY, 100, speculation="off")
    tokens, end = run(static, prompt, {}, GREEDY, 100, speculation=5)
    assert tokens == plain
    assert end.accepted_tokens > 0


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    blocks=st.integers(24, 90),
    chunk=st.sampled_from([3, 64]),
    kind=st.sampled_from(["overlapped", "overlapped", "padded"]),
)
def test_rows_that_join_leave_cancel_and_are_preempted_answer_as_alone(
    family, reference, seed, blocks, chunk, kind
):
    with engine_of(
        family.recipe, kind, kv_cache_tokens=4 * blocks, block_size=4, max_num_batched_tokens=chunk,
        max_batch_size=12,
    ) as engine:  # fmt: skip
        answer_as_alone(engine, reference, seed)
        wait_until(lambda: engine.stats().free_blocks == blocks)


def test_a_cancelled_row_is_freed_within_a_round(static):
    recorder = Recorder()
    one = static.submit(
        request(PROMPT, {"one": 1.0}, GREEDY.model_copy(update={"logit_bias": {0: -9.0}}), 500), recorder
    )
    wait_until(lambda: len(recorder.tokens) > 5)
    one.cancel()
    wait_until(lambda: static.stats().running == 0)
    assert static.stats().free_blocks == 4096 // 4


def test_a_failure_on_the_device_ends_the_requests_and_not_the_engine(static, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Round, "verify", lambda self: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(Exception, match="out of memory"):
            answer(static, request([5, 6], max_tokens=5))
    assert answer(static, request([5, 6], max_tokens=3))[1].completion_tokens <= 3
    assert static.stats().free_blocks == 4096 // 4


@pytest.mark.slow
def test_terms_with_prompts_of_their_own_and_weights_that_change(family):
    prompts = {
        "guided": BehaviorDelta(prompt="Be brief."),
        "briefed": BehaviorDelta(prompt="Be brief.", adapter=str(family.folder / "one")),
    }
    recipe = family.recipe.model_copy(update={"behaviors": {**family.recipe.behaviors, **prompts}})
    longer = [2, 80, 81, 82, 83, 84, 85, 86, *PROMPT]
    kinds = [
        (PROMPT, {"guided": 1.5}, GREEDY, {"contexts": {"guided": longer}}),
        (PROMPT, {"briefed": 1.0}, SamplingParams(seed=3), {"contexts": {"briefed": longer}}),
        (PROMPT, {"guided": 0.5, "one": 0.8}, GREEDY, {"contexts": {"guided": PROMPT[2:]}}),
        (PROMPT, {"one": Ramp(start=0, end=2, tokens=6)}, GREEDY, {}),
        (PROMPT, {"full": FirstTokens(tokens=4), "two": 0.5}, SamplingParams(seed=5), {}),
    ]
    with engine_of(recipe, **SETTINGS) as compact, engine_of(recipe, "overlapped", **SETTINGS) as engine:
        for draft in ("off", 3):
            expected = decoded(compact, kinds, draft, together=True)
            assert decoded(engine, kinds, draft, together=True) == expected
        assert engine.stats().free_blocks == 4096 // 4


# The shape decides the work


class Trace(TorchDispatchMode):
    """Every operation with everything but the content of tensors."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def outline(x):
            if isinstance(x, torch.Tensor):
                return (*x.shape, *x.stride(), x.dtype)
            return tuple(map(outline, x)) if isinstance(x, list | tuple) else x

        kwargs = kwargs or {}
        self.operations.append((str(func), outline(args), outline(tuple(kwargs.items()))))
        return func(*args, **kwargs)


@pytest.mark.slow
def test_a_rounds_operations_depend_on_its_shape_alone_and_read_nothing_back(family, monkeypatch):
    """The shape determines everything but the values of tensors, so it can be the key of a recording."""
    without_plans(monkeypatch)
    traces = {}

    def traced(half):
        plain = getattr(Round, half)

        def run(self):
            with Trace() as trace:
                plain(self)
            traces.setdefault((self.shape, half), []).append(trace.operations)

        return run

    for half in ("draft", "verify"):
        monkeypatch.setattr(Round, half, traced(half))
    with engine_of(family.recipe, "overlapped", **SETTINGS) as engine:
        for draft in ("off", 2):
            decoded(engine, work()[:6], draft, together=False)
        decoded(engine, work()[:12], 2, together=True)
    repeated = {key: runs for key, runs in traces.items() if len(runs) > 1}
    assert len(repeated) > 10
    for first, *others in repeated.values():
        assert all(other == first for other in others)
    names = {name for runs in traces.values() for name, *_ in runs[0]}
    reading = ("_local_scalar_dense", "nonzero", "masked_select", "repeat_interleave.Tensor", "unique")
    assert not [name for name in names if any(word in name for word in reading)]


def test_rows_are_padded_and_terms_share_slots(family, monkeypatch):
    """Rows of different mixtures cost as many passes as the largest of them."""
    shapes = set()

    verify = Round.verify
    monkeypatch.setattr(Round, "verify", lambda self: shapes.add(self.shape) or verify(self))
    with engine_of(family.recipe, "padded", **SETTINGS) as engine:
        kinds = [([5, 6, i], m, GREEDY, {}) for i, m in enumerate([{"one": 1.0}, {"two": 1.0}, {}])]
        decoded(engine, kinds, "off", together=True)
    assert {shape.rows for shape in shapes} <= {1, 2, 4}
    widest = max(shapes, key=lambda shape: len(shape.slots))
    assert len(widest.slots) == 3  # the base; one adapter or the other; their reference


# Recordings


@pytest.mark.slow
def test_an_engine_records_common_rounds_first_and_others_when_they_occur_again(
    family, reference, monkeypatch
):
    recorded = []

    def recorder(function):
        function()
        recorded.append((function.__self__.shape, function.__name__))
        return function

    monkeypatch.setattr(runner, "recorder_for", lambda config, device: recorder)
    with engine_of(family.recipe, "overlapped", **SETTINGS, cuda_graph_batch_sizes=(1, 4)) as engine:
        rows = [shape.rows for shape, _ in recorded]
        assert rows == sorted(rows, reverse=True)
        assert {4, 1} == set(rows)
        before = len(recorded)
        for draft in (0, 4):
            tokens, _ = run(engine, mixture={"one": 1.0}, tokens=10, speculation=draft)
            assert tokens == reference.greedy(PROMPT, {"one": 1.0}, 10)
        run(engine, mixture={"one": 1.0}, tokens=2, speculation=7)
        assert not any(shape.num_draft_tokens == 7 for shape, _ in recorded), "one round is only called"
        run(engine, mixture={"one": 1.0}, tokens=10, speculation=7)
        occurred = {half for shape, half in recorded[before:] if shape.num_draft_tokens == 7}
        assert occurred == {"draft", "verify"}
        assert len(recorded) == len(set(recorded))


def keys_and_values(pools):
    """All keys and values, without the slots that take those of padding."""
    return [each[:-1].clone() for pool in pools for pair in pool._layers.values() for each in pair]


@pytest.mark.slow
@pytest.mark.parametrize("draft", [2, *full(0, 4)])
def test_recording_in_the_midst_of_answers_writes_no_keys_and_values(family, reference, monkeypatch, draft):
    """Every round of four answers is recorded anew, one round ahead too, and answers do not change."""
    unchanged, mixture = [], {"one": 1.0}

    def recorder(function):
        pools = function.__self__._shared.pools
        before = keys_and_values(pools)
        for _ in range(2):
            function()
        unchanged.append(all(map(torch.equal, before, keys_and_values(pools))))
        return function

    monkeypatch.setattr(runner, "recorder_for", lambda config, device: recorder)
    monkeypatch.setattr(Graphs, "__contains__", lambda graphs, key: False)
    options = {**SETTINGS, "kv_cache_tokens": 128, "cuda_graph_batch_sizes": ()}
    with engine_of(family.recipe, "overlapped", **options) as engine:
        prompts = [PROMPT[:n] for n in (5, 8, 11, 14)]
        answers = [run(engine, prompt, mixture, tokens=10, speculation=draft)[0] for prompt in prompts]
    assert answers == [reference.greedy(prompt, mixture, 10) for prompt in prompts]
    assert len(unchanged) > 10
    assert all(unchanged)


def test_no_memory_to_record_fails_the_request_and_not_the_engine(family, monkeypatch):
    exhausted = threading.Event()

    def recorder(function):
        if exhausted.is_set():
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return function

    monkeypatch.setattr(runner, "recorder_for", lambda config, device: recorder)
    with engine_of(family.recipe, "padded", **SETTINGS, cuda_graph_batch_sizes=()) as engine:
        exhausted.set()
        with pytest.raises(DecodingError, match="tried to allocate 2 GiB"):
            answer(engine, request([5, 6], max_tokens=5))
        exhausted.clear()
        assert answer(engine, request([5, 6], max_tokens=3))[1].completion_tokens <= 3


def test_a_model_whose_rows_draft_no_further_runs_nothing(engine, reference, monkeypatch):
    """Rows of different models draft in one round, one of them less."""
    failed, work = [], [({"one": 1.0}, 1), ({"full": 1.0}, 4)]
    monkeypatch.setattr(DecodingLoop, "_start_anew", failed.append)
    recorders = [Recorder() for _ in work]
    for (mixture, draft), recorder in zip(work, recorders, strict=True):
        engine.submit(request(PROMPT, mixture, GREEDY, 12, speculation=draft), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    for (mixture, _), recorder in zip(work, recorders, strict=True):
        assert recorder.tokens == reference.greedy(PROMPT, mixture, 12)
    assert not failed


# What failed rounds leave


def drafted(prompt, seed):
    """A sampled request whose rounds draft two tokens."""
    sampling = SamplingParams(temperature=1.5, seed=seed)
    return request(prompt, {"one": 1.0}, sampling, max_tokens=12, speculation=2)


def test_a_round_that_fails_after_drafting_leaves_no_samples_for_the_next(engine, monkeypatch):
    expected = answer(engine, drafted([5, 6, 7], seed=1))[0]
    run_model, passes = model_pass._run, []

    def fail_at_the_first_verify_pass(*args, **kwargs):
        passes.append(1)
        if len(passes) == 3:  # after two drafts
            raise RuntimeError("device lost")
        return run_model(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(model_pass, "_run", fail_at_the_first_verify_pass)
        with pytest.raises(DecodingError, match="device lost"):
            answer(engine, drafted([9, 8, 7], seed=2))
    assert len(passes) == 3
    assert answer(engine, drafted([5, 6, 7], seed=1))[0] == expected


# On a GPU


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recorded_rounds_are_bit_for_bit_those_of_called_rounds(family, dtype):
    answers = []
    for graphs, kind in ((False, "padded"), (True, "padded"), (True, "overlapped")):
        with kind_of_rounds(kind):
            engine = Engine(
                family.recipe, EngineConfig(**SETTINGS, device="cuda", dtype=dtype, cuda_graphs=graphs)
            )
        try:
            answers.append([decoded(engine, work(), draft, together=False) for draft in ("off", 3)])
        finally:
            engine.close()
    assert answers[0] == answers[1]
    if dtype == "float32":
        assert [[tokens for tokens, _ in a] for a in answers[0]] == [
            [tokens for tokens, _ in a] for a in answers[2]
        ]
