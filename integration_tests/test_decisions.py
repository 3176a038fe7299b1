"""Decisions with the bundled weights: exact, cheap for many questions on one text, and at home in agents."""

import asyncio

import pytest
from langchain.agents import create_agent, middleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")

from unit_tests.helpers import counted_tokens  # noqa: E402

of_langchain_1_5 = pytest.mark.skipif(
    not hasattr(middleware, "AutoModeMiddleware"), reason="langchain 1.5 has the router and the auto mode"
)


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
