"""Where words come from: the tokenizer's vocabulary, cities, and other scripts. No word of an evaluation."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from langchain_eft.evaluation.tool_calls import ARGUMENTS, NOUNS, OWNERS, TOWNS, VERBS, WORDS
from training.smol.places import load_places
from training.smol.tasks.tools.everyday import EVERYDAY

WORD_START = "Ġ"
"""How the tokenizer marks a token that follows a space."""

RESERVED = frozenset(
    word.lower() for words in (VERBS, NOUNS, WORDS, TOWNS, OWNERS, *ARGUMENTS.values()) for word in words
)
"""Words of the task `tool-calls`, which no tool, no value and no request here has."""

SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ren",
    "tus",
    "vor",
    "shi",
    "pel",
    "dra",
    "qui",
    "zen",
    "bor",
    "fy",
    "nax",
    "ul",
)
LETTERS = "äöüßéèêáàâñçøåæëïîíóôúžščřłńőğışëõ"
SCRIPTS = (
    "的一是不了人我在有他这中大来上国个到说们时出会可年天山水火木金土日月风花海石林田心手目口门车马鸟鱼米竹雨雪电气集团公司",
    "абвгдежзиклмнопрстуфхцчшыюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわんアイウエオカキクケコ",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허고노도로모보소오조초코토포호",
)
"""Letters of other languages, of which words are made."""


class Part(Enum):
    """Which words are used: no word belongs to two parts."""

    TRAINING = range(2, 10)
    DEVELOPMENT = range(1)
    TEST = range(1, 2)

    def owns(self, word: str) -> bool:
        """Whether a word belongs to this part and to no evaluation."""
        lower = word.lower()
        if lower in RESERVED or (self is not Part.TRAINING and lower in EVERYDAY):
            return False
        return zlib.crc32(lower.encode()) % 10 in self.value


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The words of three letters and more among the tokenizer's tokens, in lower case and in order."""
    tokens = (token[1:].lower() for token in tokenizer.get_vocab() if token.startswith(WORD_START))
    return sorted({word for word in tokens if len(word) > 2 and word.isascii() and word.isalpha()})


class Words:
    """A seeded stream of words of one part.

    Attributes:
        random: The generator that everything about a conversation is drawn from.
        part: Which words are used.
    """

    def __init__(self, vocabulary: Sequence[str], seed: int, part: Part = Part.TRAINING) -> None:
        self.random = random.Random(seed)
        self.part = part
        self.vocabulary = [word for word in vocabulary if part.owns(word)]
        self.cities = [city for city in load_places().cities if part.owns(city)]

    def word(self) -> str:
        """A word in lower case."""
        return self.random.choice(self.vocabulary)

    def token(self) -> str:
        """A word as values have it: now and then with a capital, made up, or in another script."""
        r = self.random
        kind = r.choices(
            ("plain", "capital", "made up", "joined", "accented", "script"), (60, 14, 9, 7, 5, 5)
        )[0]
        match kind:
            case "capital":
                return r.choice((str.capitalize, str.capitalize, str.upper))(self.word())
            case "made up":
                return self._owned(self._made_up)
            case "joined":
                return self._owned(lambda: self.word() + r.choice(("-", "_", "", "'")) + self.word())
            case "accented":
                return self._owned(self._accented)
            case "script":
                script = r.choice(SCRIPTS)
                return "".join(r.choice(script) for _ in range(r.randint(2, 6)))
            case _:
                return self.word()

    def name(self) -> str:
        """A first name, or something that could be one."""
        return self._owned(lambda: self.random.choice((self._made_up, self.word))().capitalize())

    def city(self) -> str:
        """The name of a large city."""
        return self.random.choice(self.cities)

    def words(self, low: int, high: int) -> list[str]:
        """Some words in lower case."""
        return [self.word() for _ in range(self.random.randint(low, high))]

    def _made_up(self) -> str:
        return "".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 3)))

    def _accented(self) -> str:
        word = self.word()
        i = self.random.randrange(1, len(word))
        return word[:i] + self.random.choice(LETTERS) + word[i:]

    def _owned(self, draw: Callable[[], str]) -> str:
        """A drawn word that belongs to no evaluation."""
        while True:
            word = draw()
            if not RESERVED & {word.lower(), *split_words(word)}:
                return word


def split_words(text: str) -> Iterable[str]:
    """The parts of a name in lower case: `readFirst_row` has `read`, `first` and `row`."""
    parts = "".join(f" {c.lower()}" if c.isupper() else c if c.isalnum() else " " for c in text)
    return parts.split()
