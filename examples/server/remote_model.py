"""`EFTChatModel` over a server: no weights and no torch in this process.

Start a server first: langchain-eft serve
Run: python examples/server/remote_model.py
"""

import sys

from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_eft import EFTChatModel


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return f"It is sunny in {location}."


def main(base_url: str = "http://127.0.0.1:8000/v1") -> None:
    """Ask for text in two mixtures, for an object, and for the call of a tool."""
    llm = EFTChatModel(base_url=base_url, temperature=0, max_tokens=40)  # the key: LANGCHAIN_EFT_API_KEY
    mixtures = {
        "concise": {"concise": 1.0},
        "fading pirate": {"pirate": {"start": 1, "end": 0, "tokens": 32}},
    }
    for name, mixture in mixtures.items():
        print(f"{name}: {llm.invoke('Tell me about whales.', mixture=mixture).text}")
    print("object:", llm.with_structured_output(City).invoke("Paris is the capital of France."))
    call = llm.bind_tools([get_weather]).invoke("What is the weather in Paris?").tool_calls[0]
    print("tool:", get_weather.invoke(call).content)
    print("torch is loaded:", "torch" in sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
