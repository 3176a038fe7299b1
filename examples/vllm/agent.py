"""A LangGraph agent whose model is decoded by vLLM, with another mixture in each step.

The first step calls tools, with the behavior `tools`. The second tells the result, with `pirate` and
`concise`. Both are requests to one server, which decodes them in one batch with those of all other clients.

Run: langchain-eft export smol-vllm, start the line that it prints, and then
     python examples/vllm/agent.py "What is multiply(17, 23)? Use the tool."
The variables EFT_URL and EFT_FOLDER name another server, and the exported folder (without weights will do).
"""

import os
import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from langchain_eft import EFTChatModel


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


def build_graph(base_url: str, folder: str | None = None) -> CompiledStateGraph:
    """The agent, and the step that tells its result.

    Args:
        base_url: Address of the server, which ends with `/v1`.
        folder: The exported folder; None is where the server has it.
    """
    server = {"base_url": base_url, "tokenizer": folder, "temperature": 0, "max_tokens": 64}
    worker = EFTChatModel(**server, mixture={"tools": 1.0})
    teller = EFTChatModel(**server, mixture={"pirate": 1.0, "concise": 0.5})

    def tell(state: MessagesState) -> dict[str, list]:
        result = state["messages"][-1].text
        return {"messages": [teller.invoke(f"Say this to a friend: {result}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("solve", create_agent(worker, [multiply, count_letters]))
    graph.add_node("tell", tell)
    graph.add_edge(START, "solve")
    graph.add_edge("solve", "tell")
    graph.add_edge("tell", END)
    return graph.compile()


def main(*tasks: str) -> None:
    """Solve each task and print its steps."""
    url = os.environ.get("EFT_URL", "http://127.0.0.1:8000/v1")
    graph = build_graph(url, os.environ.get("EFT_FOLDER"))
    for task in tasks:
        for message in graph.invoke({"messages": [("user", task)]})["messages"]:
            print(f"{message.type}: {message.text or getattr(message, 'tool_calls', '')}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["What is multiply(17, 23)? Use the tool."])
