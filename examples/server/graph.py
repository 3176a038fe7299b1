"""A graph for LangGraph's server, whose model is behind a server of ours.

`langgraph dev` and LangGraph's platform run a graph in several workers. A model in the graph's process would
be loaded once for each of them. `langgraph.json` beside this file names the graph and sets the two variables.

Start both servers: langchain-eft serve; cd examples/server && langgraph dev
The tests run this graph, but not LangGraph's server.
"""

import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


llm = ChatOpenAI(
    base_url=os.environ.get("LANGCHAIN_EFT_URL", "http://127.0.0.1:8000/v1"),
    api_key=SecretStr(os.environ.get("LANGCHAIN_EFT_API_KEY", "none")),
    model="smol",
    temperature=0,
    max_completion_tokens=64,
)

graph = create_agent(llm, [multiply])
