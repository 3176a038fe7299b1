"""The engine on a tiny random family: exact, fair, cancellable, and honest about what it cannot do."""

import asyncio
import random
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as statistics

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import (
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    InsufficientMemoryError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
    UnsupportedModelError,
)
from langchain_eft.engine.events import Failed, Finished, TextDelta
from langchain_eft.engine.loading import kv_capacity, layout
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.registry import close_all, open_engine
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, answer, endless, failing_rounds, request, slow, wait_until

SETTINGS = [
    ({}, 1.0, 1.0),
    ({"one": 1.0}, 1.0, 1.0),
    ({"one": 0.5, "two": 1.5}, 1.0, 1.0),
    ({"full": 1.0, "two": 0.7}, 1.0, 1.0),
    ({"two": 1.0}, 1.5, 1.0),
    ({"two": 1.0}, 0.0, 1.0),
    ({"one": 1.0}, 1.0, 0.6),
    ({"one": 0.5, "two": 0.5}, 1.5, 0.9),
    ({}, 1.3, 0.8),
]


def text_of(engine, tokens):
    return engine.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


def prompts(count, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(4, 100) for _ in range(rng.randrange(1, 50))] for _ in range(count)]


def eft(mixture, strength=1.0, top_p=1.0, **kwargs):
    return {"mixture": mixture, "upscale_strength": strength, "upscale_top_p": top_p, **kwargs}


@pytest.mark.parametrize(("mixture", "strength", "top_p"), SETTINGS)
def test_greedy_decoding_equals_full_forwards(engine, reference, mixture, strength, top_p):
    # Strength with two references is refused; the reference loop has only one, which "full" shares in value.
    for prompt in prompts(4):
        expected = reference.greedy(prompt, mixture, 25, strength, top_p)
        text, end = answer(engine, request(prompt, max_tokens=25, **eft(mixture, strength, top_p)))
        assert text == text_of(engine, expected)
        assert end.completion_tokens == len(expected)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_mix_of_concurrent_requests_answers_as_alone(engine, reference, seed):
    rng = random.Random(seed)
    work = []
    for prompt in prompts(rng.randrange(2, 17), seed):
        setting, steps = rng.choice(SETTINGS), rng.randrange(1, 20)
        work.append((prompt, setting, steps, Recorder(), rng.random() < 0.25))
    for prompt, setting, steps, recorder, cancelled in work:
        generation = engine.submit(request(prompt, max_tokens=steps, **eft(*setting)), recorder)
        time.sleep(rng.random() * 0.01)
        if cancelled:
            generation.cancel()
    wait_until(lambda: all(cancelled or recorder.ended for *_, recorder, cancelled in work))
    wait_until(lambda: engine.stats().running == 0)
    for prompt, (mixture, strength, top_p), steps, recorder, cancelled in work:
        if not cancelled:
            expected = reference.greedy(prompt, mixture, steps, strength, top_p)
            assert recorder.text == text_of(engine, expected)
    assert engine.stats().free_blocks == 4096 // 4


def test_a_pool_that_is_too_small_for_all_preempts_and_loses_nothing(family, reference):
    # Six requests of up to 50 tokens in 80 tokens of memory: most are computed more than once.
    small = Engine(family.recipe, EngineConfig(kv_cache_tokens=80, block_size=4, max_num_batched_tokens=8))
    try:
        work = [(prompt[:20], Recorder()) for prompt in prompts(6, seed=5)]
        for prompt, recorder in work:
            small.submit(request(prompt, {"one": 1.0}, max_tokens=30), recorder)
        wait_until(lambda: all(recorder.ended for _, recorder in work))
        for prompt, recorder in work:
            assert recorder.text == text_of(small, reference.greedy(prompt, {"one": 1.0}, 30))
        wait_until(lambda: small.stats().free_blocks == 20)
    finally:
        small.close()


@pytest.mark.parametrize("setting", [SETTINGS[0], *slow(*SETTINGS[1:7])])
def test_samples_follow_p(engine, reference, setting):
    """First tokens of many seeds against the enumerated distribution."""
    mixture, strength, top_p = setting
    prompt, n = [7, 30, 9], 1500
    sampling = [SamplingParams(temperature=1.4, seed=seed) for seed in range(n)]
    recorders = [Recorder() for _ in range(n)]
    for params, recorder in zip(sampling, recorders, strict=True):
        engine.submit(request(prompt, sampling=params, max_tokens=1, **eft(*setting)), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    firsts = torch.tensor([recorder.tokens[0] for recorder in recorders])
    counts = firsts.bincount(minlength=len(engine.tokenizer))
    logprobs = reference.logprobs(prompt, mixture, strength, top_p)
    expected = (logprobs / 1.4).softmax(-1) * n
    order = expected.argsort(descending=True)
    common = order[expected[order] >= 5]
    rare = order[expected[order] < 5]
    observed = [*counts[common].tolist(), float(counts[rare].sum())]
    predicted = [*expected[common].tolist(), float(expected[rare].sum())]
    assert statistics.chisquare(observed, predicted).pvalue > 1e-4


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(engine):
    prompt = prompts(1, seed=3)[0]
    sampling = SamplingParams(temperature=1.0, seed=42)
    alone = [answer(engine, request(prompt, {"one": 1.0}, sampling, max_tokens=30))[0] for _ in range(2)]
    recorders = [Recorder() for _ in range(16)]
    for i, recorder in enumerate(recorders):
        other = request(prompts(16)[i], {"two": 1.0}, SamplingParams(temperature=1.0), max_tokens=30)
        mine = request(prompt, {"one": 1.0}, sampling, max_tokens=30)
        engine.submit(mine if i == 7 else other, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    assert alone[0] == alone[1] == recorders[7].text


def test_without_a_seed_every_call_draws_its_own(engine):
    drawn = {
        answer(engine, request([9, 9], sampling=SamplingParams(temperature=2.0), max_tokens=12))[0]
        for _ in range(4)
    }
    assert len(drawn) > 1


def test_stop_strings_end_the_answer_and_are_not_part_of_it(engine):
    prompt = prompts(1, seed=21)[0]
    whole, _ = answer(engine, request(prompt, {"one": 1.0}, max_tokens=40))
    stop = whole[5:8]
    cut, end = answer(engine, request(prompt, {"one": 1.0}, max_tokens=40, stop=("no such", stop)))
    assert cut == whole[: whole.index(stop)]
    assert end.reason == "stop"
    assert end.completion_tokens < 40


def test_length_is_the_reason_when_max_tokens_are_used_up(engine):
    prompt = next(p for p in prompts(9) if answer(engine, request(p, max_tokens=5))[1].reason == "length")
    _, end = answer(engine, request(prompt, max_tokens=5))
    assert (end.prompt_tokens, end.completion_tokens) == (len(prompt), 5)
    assert 0 < end.time_to_first_token <= end.seconds


def test_the_reference_is_stored_once(family, engine):
    def stored_bytes(name):
        return sum(f.stat().st_size for f in (family.folder / name).glob("*.safetensors"))

    stored = sum(stored_bytes(name) for name in ("base", "tuned", "reference", "one", "two"))
    # A tied output matrix is stored once more, in the layout that products like.
    heads = sum({id(model.head): model.head.nbytes for model in engine.family.models}.values())
    assert engine.stats().weight_bytes == pytest.approx(stored + heads, rel=0.1)
    three_copies = stored + heads + 2 * stored_bytes("reference")
    assert engine.stats().weight_bytes < three_copies


def test_closing_a_stream_frees_its_row(engine):
    before = engine.stats().free_blocks
    stream = engine.stream(request([5, 6], {"one": 1.0}, max_tokens=200, sampling=endless()))
    next(stream)
    assert engine.stats().running == 1
    generated = engine.stats().generated_tokens
    stream.close()
    wait_until(lambda: engine.stats().running == 0, 2)
    assert engine.stats().free_blocks == before
    assert engine.stats().generated_tokens - generated < 100


async def test_cancelling_a_task_frees_its_row(engine):
    async def consume():
        async for _ in engine.astream(request([5, 6], max_tokens=200, sampling=endless())):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until, lambda: engine.stats().running == 0, 2)


async def test_async_streams_give_the_same_events(engine):
    prompt = prompts(1)[0]
    events = [e async for e in engine.astream(request(prompt, {"one": 1.0}, max_tokens=20))]
    assert (
        "".join(e.text for e in events[:-1])
        == answer(engine, request(prompt, {"one": 1.0}, max_tokens=20))[0]
    )
    assert isinstance(events[-1], Finished)
    assert all(isinstance(e, TextDelta) for e in events[:-1])


async def test_time_limits_end_sync_and_async_requests(engine):
    slow = request([5, 6], max_tokens=200, sampling=endless())
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.001"):
        list(engine.stream(slow, timeout=0.001))
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.001"):
        _ = [e async for e in engine.astream(slow, timeout=0.001)]
    await asyncio.to_thread(wait_until, lambda: engine.stats().running == 0, 2)


def test_a_prompt_longer_than_the_window_is_refused_before_decoding(engine):
    generated = engine.stats().generated_tokens
    with pytest.raises(ContextWindowError, match=r"1000 tokens and.* 25 more.*1024") as error:
        engine.submit(request([5] * 1000, max_tokens=25), Recorder())
    assert (error.value.prompt_tokens, error.value.max_tokens, error.value.window) == (1000, 25, 1024)
    assert engine.stats().generated_tokens == generated
    answer(engine, request([5] * 1000, max_tokens=6))


def test_requests_that_cannot_be_served_are_refused(engine):
    with pytest.raises(RecipeError, match=r"'three'.*'full', 'one', 'two'"):
        engine.submit(request([5], {"three": 1.0}), Recorder())
    with pytest.raises(RequestError, match="Token id 9999"):
        engine.submit(request([9999]), Recorder())
    with pytest.raises(RequestError, match="Token id 7777"):
        engine.submit(request([5], sampling=SamplingParams(logit_bias={7777: 1.0})), Recorder())


def test_a_failing_device_ends_the_requests_and_not_the_engine(engine):
    with failing_rounds("out of memory"), pytest.raises(DecodingError, match="out of memory") as error:
        answer(engine, request([5]))
    assert isinstance(error.value.__cause__, RuntimeError)
    assert answer(engine, request([5], max_tokens=3))[1].completion_tokens <= 3
    assert engine.stats().free_blocks == 4096 // 4


def test_closing_fails_what_runs_and_refuses_what_comes(family):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    recorder = Recorder()
    engine.submit(request([5], max_tokens=200, sampling=endless()), recorder)
    wait_until(lambda: recorder.events)
    engine.close()
    engine.close()
    assert isinstance(recorder.events[-1], Failed)
    assert isinstance(recorder.events[-1].error, EngineClosedError)
    with pytest.raises(EngineClosedError, match="closed"):
        engine.submit(request([5]), recorder)


def test_one_engine_per_recipe_and_process(family):
    engines, threads = [], []
    for _ in range(4):
        thread = threading.Thread(target=lambda: engines.append(open_engine(family.recipe)))
        threads.append(thread)
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 1
    engines[0].close()
    again = open_engine(family.recipe)
    assert again is not engines[0]
    close_all()
    assert again.closed


@pytest.mark.parametrize("tokens", [None, 10**15])
def test_no_memory_for_keys_and_values_says_how_much_is_missing(family, monkeypatch, tokens):
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: 100)
    with pytest.raises(InsufficientMemoryError, match=r"0\.00 GiB are free on cpu.*kv_cache_tokens"):
        Engine(family.recipe, EngineConfig(kv_cache_tokens=tokens))


def test_weights_that_do_not_fit_are_refused_before_they_are_read(family, monkeypatch):
    monkeypatch.setattr(layout, "free_memory", lambda device: 10_000)
    with pytest.raises(InsufficientMemoryError, match=r"need 0.00 GiB.*base: 0.00 GiB.*free on cpu.*smaller"):
        Engine(family.recipe)


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_is_not_there_is_named(family, device):
    with pytest.raises(RecipeError, match=f"device='{device}' is not available"):
        Engine(family.recipe, EngineConfig(device=device))


def test_bfloat16_runs(family):
    engine = Engine(family.recipe, EngineConfig(dtype="bfloat16", kv_cache_tokens=512))
    try:
        assert answer(engine, request([5, 6, 7], {"one": 1.0}, max_tokens=5))[1].completion_tokens <= 5
    finally:
        engine.close()


def test_an_adapter_of_another_model_is_refused(family, tmp_path):
    from safetensors.torch import save_file

    config = family.folder / "one" / "adapter_config.json"
    (tmp_path / config.name).write_text(config.read_text())
    save_file(
        {f"base_model.model.model.h.0.{m}.weight": torch.zeros(2, 2) for m in ("lora_A", "lora_B")},
        tmp_path / "adapter_model.safetensors",
    )
    delta = BehaviorDelta(adapter=str(tmp_path), reference=str(family.folder / "reference"))
    with pytest.raises(RecipeError, match=r"model\.h\.0.*trained on"):
        Engine(Recipe(base=str(family.folder / "base"), behaviors={"x": delta}))


def test_a_model_with_recurrent_state_is_refused(tmp_path, family):
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=len(engine_tokenizer(family)), hidden_size=16, state_size=4, num_hidden_layers=2
    )
    MambaForCausalLM(config).save_pretrained(tmp_path)
    engine_tokenizer(family).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"recurrent|only state|attn|attention"):
        Engine(Recipe(base=str(tmp_path)))


def engine_tokenizer(family):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(family.folder / "base")
