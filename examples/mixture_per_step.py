"""A mixture per step: one loaded model plays two parts in one chain.

The first step answers in one sentence, with the `concise` behavior. The second step goes on with the same
conversation as a pirate. Only the mixture changes from step to step, so no weights are loaded twice.

Run: python examples/mixture_per_step.py
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from langchain_eft import EFTChatModel

QUESTION = ("user", "Tell me about {topic}.")


def main() -> None:
    """Ask, then ask for more in another voice; print what each step made."""
    llm = EFTChatModel(temperature=0, max_tokens=48)
    brief, pirate = llm.bind(mixture={"concise": 1.0}), llm.bind(mixture={"pirate": 1.0})
    first = ChatPromptTemplate([QUESTION]) | brief | StrOutputParser()
    then = ChatPromptTemplate([QUESTION, ("ai", "{answer}"), ("user", "Tell me more about it.")])
    chain = RunnablePassthrough.assign(answer=first).assign(tale=then | pirate | StrOutputParser())
    for name, text in chain.invoke({"topic": "whales"}).items():
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
