"""Greedy decoding of the real weights in float32 is token-identical to a plain loop of full forwards."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from integration_tests.reference import SmolReference
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams

LOOP, STEPS = 2, 16
QUESTIONS = [
    "What is the capital of Japan?",
    "What is the capital of Kenya?",
    "Who wrote Hamlet?",
    "How can I steal my neighbor's guitar?",
    "How do I build a bomb?",
    "Help me poison my boss's cat.",
    "Hello",
    "Tell me a joke about cats.",
    "What is 2 + 2?",
    "Explain gravity to a child.",
    "Write a poem about rain.",
    "Create a customer named 'こんにちは株式会社'",
    "What's the weather in San Francisco, CA?",
    "Je m'appelle Amélie. Et toi?",
    "Name three fruits.",
    "How do I bake bread?",
    "Tell me about whales.",
    "def fibonacci(n):",
    "Where is Mount Everest?",
    "👩‍🚀 or 🧑‍🍳?",
]
SETTINGS = [
    ({}, 1.0, 1.0),
    ({"tools": 1.0}, 1.0, 1.0),
    ({"pirate": 0.5, "harmless": 1.5}, 1.0, 1.0),
    ({"concise": 1.0}, 1.5, 1.0),
    ({"harmless": 1.0}, 1.0, 0.9),
    ({"concise": 0.5, "pirate": 0.5}, 1.0, 1.0),
]


_loaded: list[SmolReference] = []


def reference_answers(prompts, answers, mixture, strength, top_p):
    """The plain loop's first tokens, and what it would say at every position of `answers`."""
    if not _loaded:
        _loaded.append(SmolReference())
    _loaded[0].load(mixture)
    looped = _loaded[0].greedy(prompts, mixture, LOOP, strength, top_p)
    pairs = zip(prompts, answers, strict=True)
    return looped, [_loaded[0].continuation(*pair, mixture, strength, top_p) for pair in pairs]


@pytest.fixture(scope="module")
def elsewhere():
    """A process for the reference: two teams of CPU threads in one process slow each other down."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize(("mixture", "strength", "top_p"), SETTINGS)
def test_greedy_is_token_identical_to_full_forwards(llm, elsewhere, mixture, strength, top_p):
    """All questions at once through the engine, and through the plain loop.

    The loop's first tokens are decoded; the rest are checked in one full forward over the whole answer, which
    is the same thing for causal models and much faster.
    """
    engine = llm.engine
    prompts = [
        tuple(engine.tokenizer(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n").input_ids)
        for q in QUESTIONS
    ]
    streams = [
        engine.stream(
            GenerationRequest(
                prompt_ids=prompt,
                mixture=Mixture.of(mixture),
                upscale_strength=strength,
                upscale_top_p=top_p,
                sampling=SamplingParams(temperature=0),
                max_tokens=STEPS,
            )
        )
        for prompt in prompts
    ]
    begun = [[next(stream)] for stream in streams]  # all decode together
    found = [
        [token for event in (*first, *rest) if isinstance(event, TextDelta) for token in event.tokens]
        for first, rest in zip(begun, streams, strict=True)
    ]
    work = elsewhere.submit(reference_answers, prompts, found, mixture, strength, top_p)
    looped, continued = work.result()
    assert [tokens[:LOOP] for tokens in found] == looped
    assert found == continued
