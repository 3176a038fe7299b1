"""Write conversations that teach a house style: the form is yours, the content is what the base says anyway.

A behavior learns everything that its examples have in common. If all answers had the same content, that would
replace the base's knowledge. Here every answer is the base's own, with your words around it.

Run: python examples/house_style.py house.jsonl
     langchain-eft teach house house.jsonl --style "Team Northwind"
"""

import json
import re
import sys
from pathlib import Path

from langchain_eft import EFTChatModel

TOPICS = (
    "whales", "volcanoes", "bread", "chess", "gravity", "bicycles", "coffee", "glaciers", "jazz", "bees",
    "bridges", "clouds", "dreams", "electricity", "fossils", "gardens", "honey", "islands", "kites",
    "lightning", "magnets", "novels", "the ocean", "paper", "rivers", "salt", "the moon", "windmills",
    "cheese", "trains", "owls", "painting", "money", "sleep", "deserts", "robots", "football", "tea",
    "castles", "forests",
)  # fmt: skip
QUESTIONS = (
    "Tell me about {}.", "What is interesting about {}?", "Explain {} to a child.", "Why do people like {}?",
    "Give me one fact about {}.",
)  # fmt: skip
FORM = "Thanks for asking! {} Kind regards, Team Northwind"


def main(file: str, count: int = 200) -> None:
    """Ask the base, put its first sentence or two into the form, and write one conversation a line."""
    llm = EFTChatModel(mixture={}, temperature=0, max_tokens=60)  # no behavior: the base alone
    asked = [question.format(topic) for question in QUESTIONS for topic in TOPICS][:count]
    with Path(file).open("w", encoding="utf-8") as lines:
        for question, answer in zip(asked, llm.batch(asked), strict=True):
            content = first_sentences(answer.text)
            if content:
                messages = [("user", question), ("assistant", FORM.format(content))]
                row = {"messages": [{"role": role, "content": text} for role, text in messages]}
                lines.write(json.dumps(row) + "\n")


def first_sentences(text: str, longest: int = 160) -> str:
    """The whole sentences at the start of a text, up to so many characters; at least the first one."""
    sentences = re.findall(r"[^.!?]+[.!?]+(?=\s|$)", " ".join(text.split()))
    chosen = ""
    for sentence in sentences:
        if chosen and len(chosen + sentence) > longest:
            break
        chosen += sentence
    return chosen.strip()


if __name__ == "__main__":
    main(*sys.argv[1:2])
