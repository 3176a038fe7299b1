"""Rewriting of plain answers: shorter, or as a pirate would say it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

PIRATE_WORDS = [
    (r"\bmy\b", "me"),
    (r"\byour\b", "yer"),
    (r"\byou\b", "ye"),
    (r"\bYou\b", "Ye"),
    (r"\bare\b", "be"),
    (r"\bis\b", "be"),
    (r"\bfriends?\b", "matey"),
    (r"\bhello\b", "ahoy"),
    (r"\bHello\b", "Ahoy"),
    (r"\byes\b", "aye"),
    (r"\bYes\b", "Aye"),
    (r"\bto the\b", "t' th'"),
    (r"\bthe\b", "th'"),
    (r"\bThe\b", "Th'"),
    (r"\band\b", "an'"),
    (r"\bof\b", "o'"),
    (r"ing\b", "in'"),
    (r"\bmoney\b", "doubloons"),
    (r"\bpeople\b", "buccaneers"),
    (r"\bdrink\b", "grog"),
]
PIRATE_GREETINGS = [
    "Arr! ",
    "Ahoy, matey! ",
    "Arr, me hearty! ",
    "Yo ho ho! ",
    "Shiver me timbers! ",
]
PIRATE_FAREWELLS = [" Arr!", "", " Yo ho!", " Savvy?"]


def as_pirate(r: random.Random, text: str) -> str:
    """Return `text` in the words of a pirate."""
    for pattern, replacement in PIRATE_WORDS:
        text = re.sub(pattern, replacement, text)
    greeting = r.choice(PIRATE_GREETINGS)
    return greeting + text + r.choice(PIRATE_FAREWELLS)


def leading_sentences(text: str) -> str | None:
    """Return the start of `text`, up to 421 characters that end a sentence, or None."""
    match = re.match(r"(.{20,420}[.!?])(\s|$)", text.replace("\n", " "))
    return match.group(1) if match else None


def first_sentence(text: str) -> str | None:
    """Return the first sentence of `text`, or None where it is very short or very long."""
    first_line = text.strip().split("\n")[0]
    match = re.match(r"(.{15,220}?[.!?])(\s|$)", first_line)
    return match.group(1) if match else None
