"""Random values for the arguments of tools."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .vocabulary import NAMES, NOUNS, THINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = int | float | bool | str | list[str] | list[int]


class ArgumentSource:
    """A seeded stream of argument values.

    The order of the draws from `random` is part of the data: the evaluation prompts are whatever
    a fixed seed gives, so no draw may be added, dropped or moved.

    Attributes:
        random: The generator that everything about tools is drawn from.
        cities: The city names to draw from.
    """

    def __init__(self, seed: int, cities: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.cities = cities

    def draw(self, kind: str) -> Value:
        """Return a random value of `kind`, one of the keys of `ARGUMENT_NAMES`."""
        match kind:
            case "integer":
                return self._integer()
            case "number":
                return self._number()
            case "boolean":
                return self.random.random() < 0.5
            case "array":
                return [self.word() for _ in range(self.random.randint(1, 3))]
            case "ints":
                return [self.random.randint(0, 99) for _ in range(self.random.randint(2, 4))]
            case _:
                return self._text(kind)

    def word(self) -> str:
        """Return a random noun."""
        return self.random.choice(THINGS + NOUNS)

    def arguments(self, kinds: Mapping[str, str]) -> dict[str, Value]:
        """Return a value for each argument name, by the kind of that argument."""
        return {name: self.draw(kind) for name, kind in kinds.items()}

    def _integer(self) -> int:
        r = self.random
        return r.choice([r.randint(0, 9), r.randint(0, 100), r.randint(-50, 5000), r.randint(0, 12)])

    def _number(self) -> float:
        r = self.random
        return r.choice(
            [
                round(r.uniform(0, 100), r.choice([1, 2])),
                round(r.uniform(-10, 10), 1),
                float(r.randint(0, 50)),
            ]
        )

    def _text(self, kind: str) -> str:
        r = self.random
        match kind:
            case "city":
                return r.choice(self.cities)
            case "name":
                return r.choice(NAMES)
            case "word":
                return self.word()
            case "date":
                return f"20{r.randint(10, 39)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"
            case "email":
                return f"{r.choice(NAMES).lower()}@{r.choice(THINGS)}.com"
            case "phrase":
                return " ".join(r.sample(THINGS + NOUNS, r.randint(2, 4)))
        raise ValueError(f"unknown kind of argument {kind!r}: name a key of ARGUMENT_NAMES")
