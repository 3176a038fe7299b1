"""Your own LoRA as a behavior: a PEFT folder becomes a name that every call can mix in.

The folder is the argument of the command; without one, a LoRA of the bundled preset stands in. Its base is
the preset's small model, so `reference` can be left out. For a LoRA of another model family name all three:
EFTChatModel(model=LARGE, behaviors={"mine": BehaviorDelta(adapter=FOLDER, reference=SMALL)}).

Run: python examples/own_lora.py [FOLDER]
"""

import sys

from langchain_eft import BehaviorDelta, EFTChatModel
from langchain_eft.presets import load_preset


def main(folder: str | None = None) -> None:
    """Answer one question with more and more of the LoRA."""
    adapter = folder or load_preset("smol").recipe.behaviors["concise"].adapter
    llm = EFTChatModel(temperature=0, max_tokens=40, behaviors={"mine": BehaviorDelta(adapter=adapter)})
    for weight in (0.0, 0.5, 1.0):
        message = llm.invoke("Tell me about whales.", mixture={"mine": weight})
        print(f"mine={weight}: {message.content}")
    both = llm.invoke("Tell me about whales.", mixture={"mine": 1.0, "pirate": 1.0})
    print(f"mine=1.0 and pirate=1.0: {both.content}")


if __name__ == "__main__":
    main(*sys.argv[1:])
