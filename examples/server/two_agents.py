"""Two agents in two processes share one server: the weights are loaded once, and their requests batched.

Each agent has its own mixture. Without a server, each process would hold a copy of all weights.

Start a server first: langchain-eft serve
Run: python examples/server/two_agents.py
"""

import subprocess
import sys

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

TASKS = {
    "smol:tools=1": "What is multiply(17, 23)? Use the tool.",
    "smol:tools=1,harmless=0.5": "What is multiply(12, 12)? Use the tool.",
}


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def work(model: str, task: str, base_url: str, api_key: str) -> None:
    """What one process does: let an agent with this mixture solve a task."""
    llm = ChatOpenAI(
        base_url=base_url, api_key=SecretStr(api_key), model=model, temperature=0, max_completion_tokens=64
    )
    messages = create_agent(llm, [multiply]).invoke({"messages": [("user", task)]})["messages"]
    results = [message.content for message in messages if isinstance(message, ToolMessage)]
    print(f"{model}: multiply returned {', '.join(map(str, results))}; {messages[-1].text.strip()}")


def main(base_url: str = "http://127.0.0.1:8000/v1", api_key: str = "none") -> None:
    """Start a process for each agent, and wait for both."""
    commands = [[sys.executable, __file__, "work", *pair, base_url, api_key] for pair in TASKS.items()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]  # noqa: S603
    for process in processes:
        print(process.communicate()[0], end="")
    sys.exit(max(process.returncode for process in processes))


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
