"""Agents on the real weights: tools that compute and look up, answers that hold what the tools returned."""

import json

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    wrap_model_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

WEATHER = {"Paris": "cloudy", "Nairobi": "sunny", "Lima": "foggy"}


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return WEATHER.get(city, f"Error: no station in {city}")


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


TOOLS = [multiply, get_weather, count_letters]


class Product(BaseModel):
    """The product of two numbers."""

    product: int


class Report(BaseModel):
    """A weather report."""

    city: str
    weather: str


class Count(BaseModel):
    """How many letters a word has."""

    letters: int


TASKS = [
    ("What is multiply(17, 23)? Use the tool.", ["391"], Product(product=391)),
    ("Call multiply with a=12, b=34.", ["408"], Product(product=408)),
    ("What's the weather in Paris?", ["cloudy"], Report(city="Paris", weather="cloudy")),
    ("What is the weather in Nairobi?", ["sunny"], Report(city="Nairobi", weather="sunny")),
    ("Count the letters of watermelon.", ["10"], Count(letters=10)),
    ("Call count_letters with word=hippopotamus.", ["12"], Count(letters=12)),
    ("What is multiply(6, 7)? And also: What is multiply(8, 9)?", ["42", "72"], None),
]


@wrap_model_call
def answer_after_results(request, handler):
    """Once there is a result, only the answer is left: the schema is then the only tool."""
    if isinstance(request.messages[-1], ToolMessage):
        request = request.override(tools=[])
    return handler(request)


def results(messages) -> list[str]:
    return [message.content for message in messages if isinstance(message, ToolMessage)]


@pytest.mark.parametrize(("task", "expected"), [(task, expected) for task, expected, _ in TASKS])
def test_an_agent_calls_tools_and_tells_what_they_returned(llm, task, expected):
    agent, streamed, state = create_agent(llm, TOOLS), [], {}
    for mode, part in agent.stream(
        {"messages": [("user", task)]}, {"recursion_limit": 8}, stream_mode=["messages", "values"]
    ):
        if mode == "values":
            state = part
        elif isinstance(part[0], AIMessageChunk):
            streamed.append(part[0])
    messages = state["messages"]
    assert results(messages) == expected, messages
    assert any(result in messages[-1].content for result in expected), messages
    # Every token was streamed: names first, and the answer piece by piece.
    calls = [
        call["name"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls
    ]
    assert [c["name"] for chunk in streamed for c in chunk.tool_call_chunks if c["name"]] == calls
    assert "".join(chunk.content for chunk in streamed) == messages[-1].content
    assert len([chunk for chunk in streamed if chunk.content]) > 2


@pytest.mark.parametrize(("task", "expected", "answer"), [task for task in TASKS if task[2]])
@pytest.mark.parametrize("strategy", [ProviderStrategy, ToolStrategy])
def test_an_agent_answers_in_a_schema(llm, strategy, task, expected, answer):
    schema = type(answer)
    if strategy is ProviderStrategy:  # what the profile makes `create_agent` choose
        agent = create_agent(llm, TOOLS, response_format=schema)
    else:
        agent = create_agent(
            llm, TOOLS, response_format=ToolStrategy(schema), middleware=[answer_after_results]
        )
    state = agent.invoke({"messages": [("user", task)]}, {"recursion_limit": 8})
    assert results(state["messages"])[:1] == expected, state["messages"]
    assert state["structured_response"] == answer, state["messages"]
    if strategy is ProviderStrategy:
        assert schema(**json.loads(state["messages"][-1].content)) == answer
