"""Decisions with the bundled weights: exact, cheap for many questions on one text, and at home in agents."""

import asyncio
import random

import pytest
import torch
from langchain.agents import create_agent, middleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")

from unit_tests.helpers import counted_tokens  # noqa: E402
from unit_tests.oracle.smol import SmolReference  # noqa: E402

of_langchain_1_5 = pytest.mark.skipif(
    not hasattr(middleware, "AutoModeMiddleware"), reason="langchain 1.5 has the router and the auto mode"
)

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


def questions(tokenizer, count, seed=0):
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
def test_choices_equal_full_enumeration(classifier):
    tokenizer, reference = classifier.tokenizer, SmolReference("tools", "pirate", "concise", "harmless")
    asked = list(questions(tokenizer, 5))
    assert {2, 20} <= {len(question.criteria) for question in asked}
    groups = [(STATES[i % 3], MIXTURES[i], asked[i::4]) for i in range(4)]
    for state, mixture, group in groups:
        given = {"state": state, "questions": {str(i): question for i, question in enumerate(group)}}
        response = classifier.invoke(given, mixture=mixture)
        for i, question in enumerate(group):
            expected = enumerated(reference, tokenizer, state, question, mixture)
            actual = list(response.choices[str(i)].probabilities.values())
            assert actual == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def tokens_run(monkeypatch):
    """Tokens of each forward pass."""
    return counted_tokens(monkeypatch)


def test_thirty_two_questions_about_a_text_run_at_most_three_times_the_tokens_of_one(classifier, tokens_run):
    topics = ("price", "taste", "noise", "staff", "speed", "size", "color", "weight")

    def ask(number, text):
        asked = {
            f"{i}": decisions.Noul(instructions=f"Is number {i} about the {topics[i % len(topics)]}?")
            for i in range(number)
        }
        tokens_run.clear()
        response = classifier.invoke({"state": text, "questions": asked})
        assert len(response.answers) == number
        return sum(tokens_run)

    one, many = (
        ask(number, f"{number} guests say: " + "The room was small, but quiet. " * 100) for number in (1, 32)
    )
    assert many <= 3 * one
    again = ask(32, "32 guests say: " + "The room was small, but quiet. " * 100)
    assert again <= many - one / 2, "the prefix cache has the text"


def router(classifier):
    def model(name):
        return GenericFakeChatModel(messages=iter([AIMessage(name)] * 9))

    kinds = {
        "facts": "Questions about countries and cities.",
        "code": "Requests for programs.",
        "story": "Requests for a story.",
    }
    return middleware.ModelRouterMiddleware(
        choices={
            name: middleware.ModelChoice(model=model(name), criteria=criteria)
            for name, criteria in kinds.items()
        },
        instructions="Choose the kind of this message.",
        classifier=classifier,
    )


@of_langchain_1_5
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_router_sends_each_task_to_its_model(classifier, mode):
    fallback = GenericFakeChatModel(messages=iter([AIMessage("nobody")] * 9))
    agent = create_agent(fallback, middleware=[router(classifier)])
    for text, route in [
        ("Write a Python function that sorts a list.", "code"),
        ("Arr, tell me a pirate story.", "story"),
    ]:
        given = {"messages": [HumanMessage(text)]}
        state = agent.invoke(given) if mode == "invoke" else asyncio.run(agent.ainvoke(given))
        assert state["messages"][-1].content == route


@of_langchain_1_5
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize(("instructions", "runs"), [("Say Yes.", False), ("Is Tokyo a city?", True)])
def test_auto_mode_blocks_the_calls_that_the_model_finds_risky(classifier, mode, instructions, runs):
    deleted = []

    @tool
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return "done"

    class Scripted(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    call = {"name": "delete_file", "args": {"path": "a.txt"}, "id": "1", "type": "tool_call"}
    model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("over")]))
    guard = middleware.AutoModeMiddleware(
        tools=[delete_file], instructions=instructions, classifier=classifier
    )
    agent = create_agent(model, tools=[delete_file], middleware=[guard])
    given = {"messages": [HumanMessage("Delete the file.")]}
    state = agent.invoke(given) if mode == "invoke" else asyncio.run(agent.ainvoke(given))
    assert state["messages"][-1].content == "over"
    assert deleted == (["a.txt"] if runs else [])
    result = state["messages"][-2]
    assert (result.status, "blocked" in result.content) == (("success", False) if runs else ("error", True))
