"""Behaviors that compare two prompts: an explicit loop over both says the same, token for token."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import ContextWindowError, RequestError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import GREEDY, Recorder, endless, engine_of, request, slow, wait_until

BLOCK = 4
PROMPT = [7, 30, 9, 61, 61, 12]
LONGER = [2, 80, 81, 82, 83, 84, 85, 86, *PROMPT]
SHORTER = [9, 61, 61, 12]
DRAFTS = [0, 1, 2, 3, 5, 8, "auto", "off"]


@pytest.fixture(scope="module")
def recipe(family):
    """The tiny family, and prompts judged by the base, by the reference and by a tuned model."""
    folder = family.folder
    prompts = {
        "guided": BehaviorDelta(prompt="Be brief."),
        "hinted": BehaviorDelta(prompt="Be brief.", reference=str(folder / "reference")),
        "grounded": BehaviorDelta(without="context"),
        "apart": BehaviorDelta(without="context", reference=str(folder / "reference")),
        "briefed": BehaviorDelta(prompt="Be brief.", adapter=str(folder / "one")),
    }
    return family.recipe.model_copy(
        update={
            "behaviors": {**family.recipe.behaviors, **prompts},
            "allow_negative_weights": True,
        }
    )


@pytest.fixture(scope="module")
def engine(recipe):
    config = EngineConfig(kv_cache_tokens=4096, block_size=BLOCK, max_num_batched_tokens=32)
    engine = Engine(recipe, config)
    yield engine
    assert engine.stats().free_blocks == 1024
    engine.close()


def submit(engine, mixture, contexts, prompt=PROMPT, sampling=GREEDY, tokens=20, **kwargs):
    recorder = Recorder()
    generation = engine.submit(
        request(prompt, mixture, sampling, tokens, contexts=contexts, **kwargs), recorder
    )
    return generation, recorder


def decode(engine, *args, **kwargs):
    """The tokens of one answer and its end."""
    _, recorder = submit(engine, *args, **kwargs)
    wait_until(lambda: recorder.ended)
    return recorder.tokens, recorder.events[-1]


def forms(reference, prompt=PROMPT, other=LONGER):
    """Mixtures over two prompts, each beside its formula as summands."""
    base, small, one, full = (
        reference.base, *(reference.small[name] for name in ("reference", "one", "full"))
    )  # fmt: skip
    ramp = Ramp(start=0, end=2, tokens=6)
    return [
        ({"guided": 1.0}, [(1, base, other)]),
        ({"guided": 1.5}, [(1.5, base, other), (-0.5, base, prompt)]),
        ({"guided": -0.5}, [(1.5, base, prompt), (-0.5, base, other)]),
        ({"hinted": 1.2}, [(1, base, prompt), (1.2, small, other), (-1.2, small, prompt)]),
        ({"grounded": 0.7}, [(1.7, base, prompt), (-0.7, base, other)]),
        ({"briefed": 1.0}, [(1, base, prompt), (1, one, other), (-1, small, prompt)]),
        (
            {"guided": 0.5, "one": 0.8, "full": 0.4},
            [
                *[(0.5, base, prompt), (0.5, base, other), (0.8, one, prompt), (0.4, full, prompt)],
                (-1.2, small, prompt),
            ],
        ),
        (
            {"guided": ramp, "one": FirstTokens(tokens=5)},
            [
                *[(1, base, prompt), (ramp.at, base, other), (lambda t: -ramp.at(t), base, prompt)],
                *[(lambda t: t < 5, one, prompt), (lambda t: -(t < 5), small, prompt)],
            ],
        ),
    ]


FORMS = range(8)


def contexts_of(mixture, other=LONGER):
    return {name: other for name in mixture if name in ("guided", "hinted", "grounded", "briefed")}


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS[::3], *slow(*FORMS[1::3], *FORMS[2::3])])
@pytest.mark.parametrize("other", [LONGER, *slow(SHORTER)])
def test_the_explicit_loop_over_both_prompts_says_the_same(engine, reference, form, other):
    mixture, summands = forms(reference, other=other)[form]
    expected = reference.loop(summands, 12)
    contexts = contexts_of(mixture, other)
    alone, _ = decode(engine, mixture, contexts, tokens=12, speculation="off")
    assert alone == expected
    batch = [submit(engine, mixture, contexts, tokens=12, speculation=draft)[1] for draft in DRAFTS]
    wait_until(lambda: all(recorder.ended for recorder in batch))
    assert [recorder.tokens for recorder in batch] == [expected] * len(DRAFTS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["padded", "overlapped"])
def test_rounds_of_a_gpu_read_both_prompts_and_follow_schedules(recipe, reference, kind):
    settings = {"kv_cache_tokens": 4096, "block_size": BLOCK, "max_num_batched_tokens": 64}
    with engine_of(recipe, kind, **settings) as engine:
        work = []
        for mixture, summands in forms(reference):
            contexts, expected = contexts_of(mixture), reference.loop(summands, 12)
            for draft in ("off", 3, "auto"):
                _, recorder = submit(engine, mixture, contexts, tokens=12, speculation=draft)
                work.append((recorder, expected))
        wait_until(lambda: all(recorder.ended for recorder, _ in work))
        assert [recorder.tokens for recorder, _ in work] == [expected for _, expected in work]
        wait_until(lambda: engine.stats().free_blocks == 1024)


def test_strength_and_conservative_decoding_act_beside_prompts(engine, reference):
    base, small = reference.base, reference.small["reference"]
    expected = reference.loop([(1.4, base, PROMPT), (0.8, small, LONGER), (-1.2, small, PROMPT)], 16)
    contexts = {"hinted": LONGER}
    for draft in ("off", 3):
        strong, _ = decode(
            engine, {"hinted": 0.8}, contexts, tokens=16, upscale_strength=1.4, speculation=draft
        )
        assert strong == expected
    careful = {"upscale_top_p": 0.5, "tokens": 16}
    plain, _ = decode(engine, {"hinted": 0.8}, contexts, speculation="off", **careful)
    assert plain == decode(engine, {"hinted": 0.8}, contexts, speculation=4, **careful)[0]
    first = reference.conservative([(0.8, small, LONGER), (0.2, small, PROMPT)], base, small, PROMPT, 0.5)
    assert plain[0] == int(first.argmax())


def test_the_small_model_of_strength_reads_the_main_prompt(engine, reference):
    base, small, one = reference.base, reference.small["reference"], reference.small["one"]
    mixture, contexts = {"grounded": 0.5, "one": 0.8}, {"grounded": SHORTER}
    summands = [
        *((1.9, base, PROMPT), (-0.5, base, SHORTER)),
        *((0.8, one, PROMPT), (-1.2, small, PROMPT)),
    ]
    expected = reference.loop(summands, 12)
    for draft in ("off", 3):
        found, end = decode(engine, mixture, contexts, tokens=12, upscale_strength=1.4, speculation=draft)
        assert found == expected
    assert end.drafted_tokens > 0  # the adapter drafts, although the base has the document
    apart = {"apart": LONGER}
    found, _ = decode(engine, {"apart": 0.5}, apart, tokens=12, upscale_strength=1.4, speculation=3)
    summands = [(1.4, base, PROMPT), (0.1, small, PROMPT), (-0.5, small, LONGER)]
    assert found == reference.loop(summands, 12)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), blocks=st.integers(30, 90), chunk=st.sampled_from([3, 16, 64]))
def test_requests_that_join_cancel_and_are_preempted_answer_as_alone(recipe, reference, seed, blocks, chunk):
    rng = random.Random(seed)
    config = EngineConfig(kv_cache_tokens=BLOCK * blocks, block_size=BLOCK, max_num_batched_tokens=chunk)
    engine = Engine(recipe, config)
    work = []
    try:
        for _ in range(12):
            prompt = PROMPT[: rng.randrange(2, 7)] + [rng.randrange(4, 250)] * rng.randrange(1, 20)
            mixture, summands = rng.choice(forms(reference, prompt, [2, 80, 81, 82, *prompt]))
            generation, recorder = submit(
                engine,
                mixture,
                contexts_of(mixture, (2, 80, 81, 82, *prompt)),
                prompt,
                tokens=rng.randrange(1, 14),
                speculation=rng.choice(DRAFTS),
            )
            work.append((generation, recorder, summands, rng.random() < 0.2))
        wait_until(lambda: any(recorder.ended for _, recorder, *_ in work))
        for generation, *_, cancelled in work:
            if cancelled:
                generation.cancel()
        wait_until(lambda: all(recorder.ended or cancelled for _, recorder, _, cancelled in work))
        for generation, recorder, summands, cancelled in work:
            expected = reference.loop(summands, generation.request.max_tokens)
            assert recorder.tokens == (expected[: len(recorder.tokens)] if cancelled else expected)
        wait_until(lambda: engine.stats().free_blocks == blocks)
    finally:
        engine.close()


@pytest.mark.slow
def test_every_prompt_finds_its_own_blocks_again(recipe, reference):
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=800, block_size=BLOCK, max_num_batched_tokens=64))
    try:
        contexts = {"hinted": tuple(LONGER)}
        first, end = decode(engine, {"hinted": 1.2}, contexts, speculation="off")
        assert (end.prompt_tokens, end.context_tokens, end.cached_tokens) == (6, {"hinted": 14}, 0)
        cached = engine.stats().cached_tokens
        assert cached == 0
        again, end = decode(engine, {"hinted": 1.2}, contexts, speculation=4)
        assert again == first
        assert end.cached_tokens == 4
        assert engine.stats().cached_tokens == 4 + 12
        # The other prompt was read by the reference alone, and a mixture that lets it be read again finds it.
        _, end = decode(engine, {"hinted": 0.4}, contexts)
        assert engine.stats().cached_tokens == 2 * (4 + 12)
    finally:
        engine.close()


def test_prompts_of_one_text_are_one_context(engine, reference):
    expected = reference.loop([(1.5, reference.base, LONGER), (-0.5, reference.base, PROMPT)], 12)
    same = {"guided": LONGER, "grounded": PROMPT}
    found, end = decode(engine, {"guided": 1.5, "grounded": 0.7}, same, tokens=12)
    assert found == expected
    assert end.context_tokens == {"guided": len(LONGER)}


@pytest.mark.slow
def test_a_seed_gives_the_same_samples_for_every_draft_length(engine):
    for mixture, contexts in [
        ({"hinted": 1.2}, {"hinted": LONGER}),
        (
            {"guided": Ramp(start=2, end=0, tokens=5), "one": FirstTokens(tokens=3, then=0.4)},
            {"guided": LONGER},
        ),
    ]:
        sampling = SamplingParams(temperature=0.9, top_p=0.95, seed=4)
        texts = {
            tuple(decode(engine, mixture, contexts, sampling=sampling, speculation=draft)[0])
            for draft in ("off", 1, 5, "auto")
        }
        assert len(texts) == 1


@pytest.mark.parametrize("draft", ["off", 3])
def test_traces_compare_what_each_model_read(engine, reference, draft):
    base, small, one = reference.base, reference.small["reference"], reference.small["one"]
    mixture, contexts = {"guided": 1.4, "one": 0.8}, {"guided": LONGER}
    guided = [(1.4, base, LONGER), (-1.4, base, PROMPT)]
    tuned = [(0.8, one, PROMPT), (-0.8, small, PROMPT)]
    _, recorder = submit(
        engine, mixture, contexts, sampling=SamplingParams(seed=5), tokens=6, trace=True, speculation=draft
    )
    wait_until(lambda: recorder.ended)
    traces = [trace for event in recorder.events[:-1] for trace in event.traces]
    assert len(traces) == len(recorder.tokens)

    def logp(*summands):
        return reference.mixed(summands, recorder.tokens[:-1])

    p, plain = logp((1, base, PROMPT), *guided, *tuned), logp((1, base, PROMPT))
    without = {"guided": logp((1, base, PROMPT), *tuned), "one": logp((1, base, PROMPT), *guided)}
    small_mixture = logp((1, small, PROMPT), *guided, *tuned)
    pairs = {
        "guided": (logp((1, base, LONGER)), plain),
        "one": (logp((1, one, PROMPT)), logp((1, small, PROMPT))),
    }
    for i, (token, trace) in enumerate(zip(recorder.tokens, traces, strict=True)):
        traced = [trace.logprob, trace.base, trace.small]
        assert traced == pytest.approx([float(q[i, token]) for q in (p, plain, small_mixture)], abs=1e-3)
        for name, part in trace.behaviors.items():
            expected = [float(q[i, token]) for q in pairs[name]]
            assert [part.tuned, part.reference] == pytest.approx(expected, abs=1e-3)
            change = p[i].exp() - without[name][i].exp()
            assert part.shift.total_variation == pytest.approx(float(change.abs().sum()) / 2, abs=1e-4)


def test_a_prompt_that_is_missing_is_named(engine):
    with pytest.raises(RequestError, match=r"`contexts` lacks 'guided'.*second prompt of every behavior"):
        engine.submit(request(PROMPT, {"guided": 1.0}), Recorder())


def test_the_longest_prompt_and_the_memory_of_all_bound_the_answer(recipe):
    engine = Engine(recipe, EngineConfig(max_model_len=40, kv_cache_tokens=60, block_size=BLOCK))
    try:
        with pytest.raises(ContextWindowError, match=r"has 38 tokens and the request asks for 3 more.*is 40"):
            submit(engine, {"guided": 1.5}, {"guided": [5] * 38}, [5], tokens=3)
        # Two texts of 20 tokens share 60: what is left is half of it for each.
        assert engine.max_output_tokens(20, 20) == (60 - 40 - 3) // 2
        with pytest.raises(ContextWindowError, match="lower `max_tokens` to 8"):
            submit(engine, {"guided": 1.5}, {"guided": [5] * 20}, [6] * 20, tokens=9)
        _, end = decode(engine, {"guided": 1.5}, {"guided": [5] * 20}, [6] * 20, endless(), tokens=8)
        assert end.completion_tokens == 8
    finally:
        engine.close()


def test_token_ids_of_every_prompt_are_checked(engine):
    with pytest.raises(RequestError, match="Token id 100000"):
        submit(engine, {"guided": 1.0}, {"guided": [5, 100000]})
