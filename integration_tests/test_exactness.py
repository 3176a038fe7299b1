"""The engine with real weights in float32 says what plain forward passes say: greedy answers, decisions."""

import random

import pytest
import torch

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
EVERYDAY = [({"pirate": 0.5, "harmless": 1.5}, 1.5, 0.9)]
OTHERS = [
    ({"pirate": 0.5, "harmless": 1.5}, 1.0, 1.0),
    ({"concise": 1.0}, 1.5, 0.9),
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


# Decisions

WORDS = (
    "billing", "refund", "shipping", "delay", "invoice", "crash", "login", "password", "update", "upgrade",
    "cancel", "account", "order", "damaged", "missing", "late", "broken", "slow", "cheap", "friendly", "rude",
    "urgent", "calm", "angry", "happy", "Tokyo", "Paris", "Ulm",
)  # fmt: skip
STATES = (
    "My parcel has not come, and nobody answers the phone.",
    "The capital of Japan is large. I was there last week.",
    "Please send my money back, I was charged twice.",
)
MIXTURES = ({"tools": 1.0}, {"pirate": 0.7}, {}, {"concise": 1.0, "harmless": 0.5})


def label(rng, tokenizer, tokens):
    """A label of so many tokens."""
    while True:
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, tokens)))
        if len(tokenizer(text, add_special_tokens=False).input_ids) == tokens:
            return text


def questions(decisions, tokenizer, count, seed=0):
    """Choices of 2 labels, of 20, and of numbers between; each label has 1 to 6 tokens."""
    rng = random.Random(seed)
    for number in range(count):
        labels, wanted = set(), 2 + number * 18 // (count - 1)
        while len(labels) < wanted:
            labels.add(label(rng, tokenizer, rng.randint(1, 6)))
        yield decisions.Choice(instructions="Which word fits best?", criteria=dict.fromkeys(sorted(labels)))


def enumerated(reference, tokenizer, state, question, mixture):
    """The probability of every label, by forward passes in transformers over all of them."""
    labels = list(question.criteria)
    listed = "\n".join(f"- {each}" for each in labels)
    asked = f"{state}\n\n{question.instructions}\n{listed}\nAnswer with one of these options only."
    turns = [{"role": "user", "content": asked}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    ids = [tokenizer(each, add_special_tokens=False).input_ids for each in labels]
    if any(a != b and b[: len(a)] == a for a in ids for b in ids):
        ids = [[*each, tokenizer.eos_token_id] for each in ids]
    rows = reference.answer_logprobs(prompt, ids, mixture)
    totals = [row[range(len(each)), each].double().sum() for row, each in zip(rows, ids, strict=True)]
    return torch.stack(totals).softmax(0).tolist()


@pytest.mark.slow
def test_choices_equal_full_enumeration(classifier, reference):
    decisions = pytest.importorskip(
        "langchain_core.decisions", reason="langchain-core 1.8 has decision models"
    )
    tokenizer = classifier.tokenizer
    asked = list(questions(decisions, tokenizer, 5))
    assert {2, 20} <= {len(question.criteria) for question in asked}
    groups = [(STATES[i % 3], MIXTURES[i], asked[i::4]) for i in range(4)]
    for state, mixture, group in groups:
        given = {"state": state, "questions": {str(i): question for i, question in enumerate(group)}}
        response = classifier.invoke(given, mixture=mixture)
        for i, question in enumerate(group):
            expected = enumerated(reference, tokenizer, state, question, mixture)
            actual = list(response.choices[str(i)].probabilities.values())
            assert actual == pytest.approx(expected, abs=1e-4)
