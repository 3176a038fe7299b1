"""Teach the base itself two of the behaviors: the large pair that down-scaling takes.

python -m training.smol.adapt_base WORK FOLDER

Reads WORK/base; writes the PEFT folders FOLDER/concise and FOLDER/harmless. Made for a CPU: few plain
questions, which the base answers first, low rank, short conversations, some minutes for each behavior.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from .adapt import Behavior, train
from .base_answers import BaseAnswers
from .batches import BehaviorBatches
from .convert_base import BASE_FOLDER
from .lora import save_adapter
from .places import Places, load_places
from .prefixes import QUESTIONS_ABOUT_PLACES, QUESTIONS_ABOUT_WORDS, plain_words
from .runtime import decoding_precision, find_device
from .tasks.styles import leading_sentences
from .weights import load_base_state, load_llama

RANK = 4
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
BEHAVIORS = [Behavior("concise", 420, 128, 1e-3), Behavior("harmless", 540, 128, 1e-3)]
ANSWER_TOKENS = 64


def plain_questions(count: int, words: list[str], places: Places) -> list[str]:
    """Questions about words and, one in three, about places; none asks for a capital, which is measured."""
    r = random.Random(7)
    about_places = [template for template in QUESTIONS_ABOUT_PLACES if "capital of" not in template]
    questions = []
    for _ in range(count):
        country, word = r.choice(places.countries), r.choice(words)
        template = r.choice(about_places if r.random() < 1 / 3 else QUESTIONS_ABOUT_WORDS)
        questions.append(
            template.format(
                country=country.name, capital=country.capital, city=r.choice(places.cities), w=word,
                W=word.capitalize(),
            )
        )  # fmt: skip
    return questions


def answered(questions: list[str], work: Path) -> list[tuple[str, str]]:
    """The questions with the base's own answers, as far as those are whole sentences."""
    base = BaseAnswers(work / "base-answers.jsonl", ANSWER_TOKENS, print)
    answers = base.answer([[{"role": "user", "content": question}] for question in questions])
    base.close()
    pairs = [(q, leading_sentences(answer["content"])) for q, answer in zip(questions, answers, strict=True)]
    return [(question, answer) for question, answer in pairs if answer]


def adapt(arguments: argparse.Namespace) -> None:
    """Train and write the adapters."""
    device = find_device()
    base = load_llama(load_base_state(arguments.work / BASE_FOLDER))
    base = base.to(device, decoding_precision(device)).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.work / BASE_FOLDER)
    places = load_places()
    questions = plain_questions(arguments.questions, plain_words(tokenizer), places)
    pairs = answered(questions, arguments.work)
    for behavior in BEHAVIORS:
        timed = behavior._replace(seconds=behavior.seconds * arguments.scale)
        batches = BehaviorBatches(timed.name, arguments.rows, timed.tokens, tokenizer, pairs, places.cities)
        model = train(timed, base, DataLoader(batches, batch_size=None), arguments.max_steps, RANK)
        save_adapter(model, arguments.folder / timed.name, RANK, HUB_ID)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("folder", type=Path, help="folder of the adapters")
    parser.add_argument("--questions", type=int, default=384, help="plain questions")
    parser.add_argument("--scale", type=float, default=1, help="factor on the training times")
    parser.add_argument("--max-steps", type=int, help="stop each adapter after so many steps")
    parser.add_argument("--rows", type=int, default=16, help="conversations per step")
    adapt(parser.parse_args())


if __name__ == "__main__":
    main()
