"""Agents on the real weights: tools that compute and look up, answers that hold what the tools returned."""

import asyncio
import itertools
import json

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from training.smol.agents import count_letters, multiply

WEATHER = {"Paris": "cloudy", "Nairobi": "sunny", "Lima": "foggy"}


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return WEATHER.get(city, f"Error: no station in {city}")


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


ANSWERED = {
    "What is multiply(17, 23)? Use the tool.": ("391", Product(product=391)),
    "Call multiply with a=12, b=34.": ("408", Product(product=408)),
    "Use the get_weather tool with city Nairobi.": ("sunny", Report(city="Nairobi", weather="sunny")),
    "Count the letters of watermelon.": ("10", Count(letters=10)),
    "Call count_letters with word=hippopotamus.": ("12", Count(letters=12)),
}
"""What the one call returns, and the same as an object."""

SEVERAL = {
    "What is multiply(6, 7)? And also: What is multiply(8, 9)?": ["42", "72"],
    "What is the weather in Paris? And also: What is the weather in Lima?": ["cloudy", "foggy"],
}
"""What the two calls of one message return."""

TASKS = {**{task: [result] for task, (result, _) in ANSWERED.items()}, **SEVERAL}


STRUCTURED = [
    *(("provider", task) for task in ANSWERED),
    # Here the object is a call, and these weights copy a call's arguments from the question: to the first
    # task they say Product(product=17). These two have nothing there to be copied by mistake.
    ("tool", "Use the get_weather tool with city Nairobi."),
    ("tool", "Call count_letters with word=hippopotamus."),
]


@wrap_model_call
async def answer_after_results(request, handler):
    """Once there is a result, the schema is the only tool that is left."""
    if isinstance(request.messages[-1], ToolMessage):
        request = request.override(tools=[])
    return await handler(request)


async def run(agent, task, **config):
    """An agent's last state, and the chunks of messages that it streamed."""
    chunks, state = [], {}
    inputs = {"messages": [("user", task)]}
    config = {"recursion_limit": 8, **config}
    async for mode, part in agent.astream(inputs, config, stream_mode=["messages", "values"]):
        if mode == "values":
            state = part
        elif isinstance(part[0], AIMessageChunk):
            chunks.append(part[0])
    return state, chunks


@pytest.fixture(scope="module")
def runs(llm):
    """All tasks at once, by strategy and task: the agents' steps meet in the engine's batches."""
    # Rounds of few tokens, whatever the machine's speed says: calls are to come in pieces.
    llm = llm.model_copy(update={"speculation": 2})
    agents = {("none", task): create_agent(llm, TOOLS) for task in TASKS}
    for strategy, task in STRUCTURED:
        schema = type(ANSWERED[task][1])
        if strategy == "provider":  # what the model's profile makes `create_agent` choose
            agents[strategy, task] = create_agent(llm, TOOLS, response_format=schema)
        else:
            agents[strategy, task] = create_agent(
                llm, TOOLS, response_format=ToolStrategy(schema), middleware=[answer_after_results]
            )

    async def all_runs():
        return await asyncio.gather(*(run(agent, task) for (_, task), agent in agents.items()))

    return dict(zip(agents, asyncio.run(all_runs()), strict=True))


def results(messages) -> list[str]:
    return [message.content for message in messages if isinstance(message, ToolMessage)]


@pytest.mark.parametrize(("task", "expected"), TASKS.items())
def test_an_agent_calls_its_tools_and_tells_what_they_returned(runs, task, expected):
    state, chunks = runs["none", task]
    messages = state["messages"]
    assert results(messages) == expected, messages
    assert any(result in messages[-1].content for result in expected), messages
    # Every token was streamed: calls by name and in pieces, the answer piece by piece.
    calls = [call["name"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece["name"] for piece in pieces if piece["name"]] == calls
    assert len(pieces) > 2 * len(calls)
    assert "".join(chunk.content for chunk in chunks).endswith(messages[-1].content)


@pytest.mark.parametrize(("strategy", "task"), STRUCTURED)
def test_an_agent_answers_in_a_schema(runs, strategy, task):
    result, answer = ANSWERED[task]
    state, chunks = runs[strategy, task]
    messages = state["messages"]
    assert results(messages)[0] == result, messages
    assert state["structured_response"] == answer, messages
    if strategy == "provider":
        assert type(answer)(**json.loads(messages[-1].content)) == answer
        assert len([chunk for chunk in chunks if chunk.content]) > 1


async def test_the_next_turn_of_a_checkpointed_conversation_reads_the_prefix_cache(llm):
    agent = create_agent(llm, TOOLS, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    first, _ = await run(agent, "Call multiply with a=12, b=34.", **thread)
    second, _ = await run(agent, "Call count_letters with word=hippopotamus.", **thread)
    messages = second["messages"]
    assert results(messages) == ["408", "12"], messages
    assert "12" in messages[-1].content
    spoken = [m.usage_metadata for m in messages if isinstance(m, AIMessage)]
    assert len(first["messages"]) == 4
    # Every later step finds nearly all that stood before it: only the newest messages are computed.
    for before, after in itertools.pairwise(spoken):
        assert after["input_token_details"]["cache_read"] >= 0.9 * before["input_tokens"]
