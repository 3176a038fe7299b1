"""What LangChain's agents and their middleware need of a chat model, over a scripted engine."""

import re

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_eft import EFTChatModel
from langchain_eft.engine.errors import DecodingError, RequestError
from unit_tests.scripted import MODEL, TEMPLATE, ScriptedEngine, call, installed


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """The sum of two numbers."""

    total: int


def script(prompt: str) -> list[str]:
    """Calls for sums, tells what came back, and sums up what it is asked to sum up."""
    turn = prompt.rpartition("<|im_start|>user\n")[2]
    if "<messages>" in turn.lower():
        return ["They added numbers."]
    if "<tool_response>" in turn:
        result = re.findall(r"<tool_response>\n(.*?)\n</tool_response>", turn)[-1]
        return [f"It is {result}.", f'{{"total": {result}}}', call("Sum", total=int(result))]
    a, b = re.findall(r"\d+", turn)[-2:]
    return [call("add", a=int(a), b=int(b))]


@pytest.fixture
def engine():
    with installed(ScriptedEngine(script, TEMPLATE)) as engine:
        yield engine


@pytest.fixture
def llm(engine):
    return EFTChatModel(model=MODEL, temperature=0, max_tokens=200, profile={"max_input_tokens": 8192})


def ask(agent, text, **config):
    return agent.invoke({"messages": [("user", text)]}, {"recursion_limit": 10, **config})


@pytest.mark.parametrize("strategy", [None, ProviderStrategy, ToolStrategy])
def test_a_model_calls_and_then_answers_freely_or_in_a_schema(engine, strategy):
    llm = EFTChatModel(model=MODEL, temperature=0)
    assert llm.profile["structured_output"]
    tools = [add] if strategy is not ToolStrategy else []
    agent = create_agent(llm, tools, response_format=strategy and strategy(Sum))
    if strategy is ToolStrategy:
        state = agent.invoke(
            {
                "messages": [
                    HumanMessage("3 + 4?"),
                    AIMessage("", tool_calls=[{"name": "add", "args": {"a": 3, "b": 4}, "id": "1"}]),
                    ToolMessage("7", tool_call_id="1"),
                ]
            }
        )
    else:
        state = ask(agent, "What is 3 + 4?")
        assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)] == ["7"]
    if strategy is None:
        assert state["messages"][-1].content == "It is 7."
    else:
        assert state["structured_response"] == Sum(total=7)


def test_a_free_call_has_the_arguments_of_its_tool():
    """A small model mixes up the parameters of its tools. Decoding does not."""
    answers = [call("capital", text="Kenya"), call("city", country="Kenya"), call("capital", country="Kenya")]

    def confused(prompt):
        return ["It is Nairobi."] if "<tool_response>" in prompt else answers

    @tool
    def capital(country: str) -> str:
        """The capital of a country."""
        return f"Nairobi is the capital of {country}."

    @tool
    def reverse(text: str) -> str:
        """A text backwards."""
        return text[::-1]

    with installed(ScriptedEngine(confused, TEMPLATE)):
        llm = EFTChatModel(model=MODEL, temperature=0)
        state = ask(create_agent(llm, [add, capital, reverse]), "What is the capital of Kenya?")
        free = llm.model_copy(update={"strict": False}).bind_tools([capital]).invoke("And of Kenya?")
    assert [m.content for m in state["messages"][2:]] == [
        "Nairobi is the capital of Kenya.",
        "It is Nairobi.",
    ]
    assert free.tool_calls[0]["args"] == {"text": "Kenya"}


def test_a_schema_without_tools_binds_an_empty_list(llm):
    agent = create_agent(llm, [], response_format=ProviderStrategy(Sum))
    history = [HumanMessage("?"), AIMessage("", tool_calls=[{"name": "add", "args": {}, "id": "1"}])]
    state = agent.invoke({"messages": [*history, ToolMessage("9", tool_call_id="1")]})
    assert state["structured_response"] == Sum(total=9)


def test_ids_of_calls_are_unique_over_a_whole_conversation(llm):
    agent = create_agent(llm, [add], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for numbers in ("1 + 2", "3 + 4", "5 + 6"):
        state = ask(agent, f"What is {numbers}?", **thread)
    ids = [c["id"] for m in state["messages"] if isinstance(m, AIMessage) for c in m.tool_calls]
    assert len(set(ids)) == len(ids) == 3
    assert state["messages"][-1].content == "It is 11."
    assert state["messages"][-1].usage_metadata["input_token_details"]["cache_read"] > 0


def test_summarization_at_a_fraction_of_the_window(llm):
    small = llm.model_copy(update={"profile": {**llm.profile, "max_input_tokens": 1200}})
    middleware = SummarizationMiddleware(small, trigger=("fraction", 0.5), keep=("messages", 2))
    agent = create_agent(llm, [add], middleware=[middleware], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for first in range(10, 16):
        state = ask(agent, f"{'Please, ' * 20} what is {first} + 4?", **thread)
        assert state["messages"][-1].content == f"It is {first + 4}."
    assert "They added numbers." in state["messages"][0].content
    assert len(state["messages"]) < 24


def test_context_editing_counts_with_the_models_own_tokens(llm):
    edit = ClearToolUsesEdit(trigger=1000, keep=1, placeholder="[gone]")
    middleware = ContextEditingMiddleware(edits=[edit], token_count_method="model")  # noqa: S106
    agent = create_agent(llm, [add], middleware=[middleware])
    calls = [{"name": "add", "args": {"a": i, "b": 1}, "id": str(i)} for i in range(20)]
    history = [HumanMessage("many"), AIMessage("", tool_calls=calls)]
    history += [ToolMessage("123456", tool_call_id=str(i)) for i in range(20)]
    assert llm.get_num_tokens_from_messages(history) > 1000
    state = agent.invoke({"messages": [*history, AIMessage("So."), HumanMessage("What is 5 + 6?")]})
    assert state["messages"][-1].content == "It is 11."


@pytest.mark.parametrize(("error", "tries"), [(DecodingError("lost"), 2), (RequestError("wrong"), 1)])
def test_retries_follow_is_retryable(llm, engine, monkeypatch, error, tries):
    seen, generate = [], engine.generate

    def failing(*args):
        seen.append(1)
        if len(seen) == 1:
            raise error
        return generate(*args)

    monkeypatch.setattr(engine, "generate", failing)
    retry = ModelRetryMiddleware(
        max_retries=2, initial_delay=0, jitter=False, on_failure="error",
        retry_on=lambda e: getattr(e, "is_retryable", False),
    )  # fmt: skip
    agent = create_agent(llm, [], middleware=[retry])
    if tries == 1:
        with pytest.raises(RequestError, match="wrong"):
            ask(agent, "What is 5 + 6?")
    else:
        ask(agent, "What is 5 + 6?")
    assert len(seen) == tries


def test_too_long_a_conversation_is_the_error_that_middleware_knows(engine):
    from langchain_core.exceptions import ContextOverflowError

    agent = create_agent(EFTChatModel(model=MODEL), [add])
    with pytest.raises(ContextOverflowError, match=r"8192"):
        ask(agent, "x" * 9000)
