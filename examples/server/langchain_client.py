"""LangChain's ChatOpenAI talks to a server, as it talks to OpenAI: tools, structured output, batches.

Start a server first: langchain-eft serve
Run: python examples/server/langchain_client.py
"""

import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr


class Animal(BaseModel):
    """An animal."""

    name: str
    legs: int


def main(base_url: str = "http://127.0.0.1:8000/v1", api_key: str = "none") -> None:
    """Ask for a text, an object, and two answers at once."""
    llm = ChatOpenAI(
        base_url=base_url, api_key=SecretStr(api_key), model="smol", temperature=0, max_completion_tokens=40
    )
    pirate = llm.bind(extra_body={"mixture": {"pirate": 1.0, "concise": 1.0}})
    print("pirate:", pirate.invoke("Tell me about whales.").content)

    # The server enforces the schema while it decodes.
    print("object:", llm.with_structured_output(Animal).invoke("The ant has six legs."))

    # The server decodes both in one batch.
    capitals = llm.batch([f"What is the capital of {country}?" for country in ("Japan", "France")])
    print("capitals:", *(answer.content for answer in capitals))


if __name__ == "__main__":
    main(*sys.argv[1:])
