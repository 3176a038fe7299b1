"""A chain: one prompt template, two styles of answer, side by side.

The chain is plain LangChain (LCEL). The second style differs from the first only in its mixture, so both
use the same loaded weights, and all four answers decode in one batch.

Run: python examples/chain.py
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel

from langchain_eft import EFTChatModel


def main() -> None:
    """Ask about two topics in two styles."""
    llm = EFTChatModel(temperature=0, max_tokens=40)  # the bundled "smol" preset
    prompt = ChatPromptTemplate.from_template("Tell me about {topic}.")
    by_style = {style: llm.bind(mixture={style: 1.0}) for style in ("concise", "pirate")}
    chains = {style: prompt | model | StrOutputParser() for style, model in by_style.items()}
    topics = ["whales", "volcanoes"]
    answers = RunnableParallel(chains).batch([{"topic": topic} for topic in topics])
    for topic, texts in zip(topics, answers, strict=True):
        for style, text in texts.items():
            print(f"{topic} ({style}): {text}")


if __name__ == "__main__":
    main()
