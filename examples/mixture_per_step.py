"""A mixture per step: one loaded model plays three parts in one chain.

The first step lets the large base model write freely. The second step says the same in one sentence, with
the `concise` behavior. The third step answers a question about it as a pirate whose accent grows over the
answer: a weight may be a schedule. No weights are loaded twice.

Run: python examples/mixture_per_step.py
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from langchain_eft import EFTChatModel, Ramp


def main() -> None:
    """Write, shorten, retell; print what each step made."""
    llm = EFTChatModel(temperature=0, max_tokens=48)
    write = step(llm.bind(mixture={}), "Tell me about {topic}.")
    shorten = step(llm.bind(mixture={"concise": 1.0}), "Say it in one sentence: {text}")
    accent = Ramp(start=0.3, end=1.2, tokens=12)
    retell = step(llm.bind(mixture={"pirate": accent}), "What is this about? {summary}")
    chain = RunnablePassthrough.assign(text=write).assign(summary=shorten).assign(tale=retell)
    for name, text in chain.invoke({"topic": "whales"}).items():
        print(f"{name}: {text}")


def step(model: Runnable, prompt: str) -> Runnable:
    """One prompt, one model, a string as the answer."""
    return ChatPromptTemplate.from_template(prompt) | model | StrOutputParser()


if __name__ == "__main__":
    main()
