"""Many requests at once: the engine decodes all of them in one batch, whatever each one asks for.

Every request has its own mixture, temperature and length. They join the batch when they come and leave it
when they end, so that no request waits for a longer one.

Run: python examples/serve_many.py
"""

import asyncio
import time

from langchain_core.messages import AIMessage

from langchain_eft import EFTChatModel

QUESTIONS = ["What is the capital of Japan?", "Tell me about whales.", "Say hello."]
MIXTURES = [{}, {"concise": 1.0}, {"pirate": 1.0}, {"pirate": 0.5, "concise": 0.5}]


async def serve(llm: EFTChatModel) -> list[AIMessage]:
    """Ask every question with every mixture, all at the same time."""
    calls = [
        llm.ainvoke(question, mixture=mixture, max_tokens=16 + 4 * i, temperature=i / 10, seed=i)
        for question in QUESTIONS
        for i, mixture in enumerate(MIXTURES)
    ]
    return await asyncio.gather(*calls)


def main() -> None:
    """Serve twelve requests and say how fast they were."""
    llm = EFTChatModel()
    llm.open()  # loads the weights now, so that the clock measures decoding alone
    started = time.perf_counter()
    answers = asyncio.run(serve(llm))
    seconds = time.perf_counter() - started
    for answer in answers:
        print(answer.response_metadata["eft"]["mixture"], answer.content.replace("\n", " "))
    tokens = sum(answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata)
    print(f"{len(answers)} answers, {tokens} tokens, {tokens / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
