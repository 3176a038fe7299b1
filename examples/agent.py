"""An agent: the model calls a tool, reads the result and answers.

`create_agent` is LangChain's own. The `tools` behavior of the bundled preset makes the calls; the model
sees each tool's name, description and argument schema.

Run: python examples/agent.py
"""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from langchain_eft import EFTChatModel


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


def main() -> None:
    """Solve a task that needs a tool, and print every step."""
    llm = EFTChatModel(temperature=0, max_tokens=64, mixture={"tools": 1.0})
    agent = create_agent(llm, [multiply, count_letters])
    task = {"messages": [("user", "What is multiply(17, 23)? Use the tool.")]}
    for step in agent.stream(task, stream_mode="updates"):
        for update in step.values():
            for message in update["messages"]:
                report(message)


def report(message: AIMessage | ToolMessage) -> None:
    """Print a step of the agent: the calls, the result of one, or the answer."""
    if isinstance(message, ToolMessage):
        print(f"{message.name} returned {message.content}")
    elif message.tool_calls:
        print("calls", ", ".join(f"{call['name']}({call['args']})" for call in message.tool_calls))
    else:
        print(message.content)


if __name__ == "__main__":
    main()
