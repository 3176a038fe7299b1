"""Greedy decoding of the real weights in float32 is token-identical to a plain loop of full forwards."""

import pytest

from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams
from unit_tests.helpers import full
from unit_tests.oracle.smol import SmolReference

STEPS = 16
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
EVERYDAY = [({"pirate": 0.5, "harmless": 1.5}, 1.0, 1.0), ({"concise": 1.0}, 1.5, 0.9)]
OTHERS = [
    ({}, 1.0, 1.0),
    ({"tools": 1.0}, 1.0, 1.0),
    ({"concise": 1.0}, 1.5, 1.0),
    ({"harmless": 1.0}, 1.0, 0.9),
    ({"concise": 0.5, "pirate": 0.5}, 1.0, 1.0),
]


@pytest.fixture(scope="module")
def reference():
    return SmolReference("tools", "pirate", "harmless", "concise")


@pytest.mark.slow
@pytest.mark.parametrize("setting", [*EVERYDAY, *full(*OTHERS)], ids=str)
def test_greedy_is_token_identical_to_full_forwards(llm, reference, setting):
    """All questions at once through the engine; its answers in one full forward each.

    A loop of full forwards says the same as one over the whole answer, for each token that was right so far.
    """
    engine, (mixture, strength, top_p) = llm.engine, setting
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
    assert all(len(answer) == STEPS or answer[-1] == engine.tokenizer.eos_token_id for answer in found)
    assert found == [
        reference.all_logprobs([*prompt, *answer[:-1]], len(answer), *setting).argmax(-1).tolist()
        for prompt, answer in zip(prompts, found, strict=True)
    ]
