"""Greedy decoding of the real weights in float32 is token-identical to a plain loop of full forwards."""

import pytest

from integration_tests.reference import SmolReference
from langchain_eft.behaviors import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams

LOOP, STEPS = 4, 16
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


@pytest.fixture(scope="module")
def reference():
    return SmolReference(["tools", "pirate", "harmless", "concise"])


@pytest.mark.slow
@pytest.mark.parametrize(("mixture", "strength", "top_p"), SETTINGS)
def test_greedy_is_token_identical_to_full_forwards(llm, reference, mixture, strength, top_p):
    """All questions at once through the engine, and through the plain loop.

    The loop's first tokens are decoded; the rest are checked in one full forward over the whole answer, which
    is the same thing for causal models and much faster.
    """
    engine = llm.engine
    prompts = [
        tuple(engine.tokenizer(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n").input_ids)
        for q in QUESTIONS
    ]
    found: list[list[int]] = [[] for _ in prompts]
    runner, original = engine._runner, engine._runner.step

    def recording(rows):
        emitting = [row.sequence.generation.request for row in rows if row.emits]
        tokens = original(rows)
        for request, token in zip(emitting, tokens, strict=True):
            found[prompts.index(request.prompt_ids)].append(token)
        return tokens

    runner.step = recording
    try:
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
        for stream in streams:
            for _ in stream:
                pass
    finally:
        runner.step = original
    looped = reference.greedy(prompts, mixture, LOOP, strength, top_p)
    for prompt, tokens, expected in zip(prompts, found, looped, strict=True):
        assert tokens[:LOOP] == expected
        assert tokens == reference.continuation(prompt, tokens, mixture, strength, top_p)
