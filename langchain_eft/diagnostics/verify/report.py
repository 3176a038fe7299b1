"""What a verification has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langchain_eft.diagnostics.verify.plan import ALPHA, TESTS
from langchain_eft.engine.request import (
    Speculation,
)

Verdict = Literal["passed", "failed", "not compared bit for bit"]


@dataclass(frozen=True)
class Row:
    """One comparison of the engine with full forwards.

    Attributes:
        what: What was compared.
        speculation: Draft length.
        batch: Requests decoded together.
        tokens: Tokens compared.
        statistic: What `value` is: `equal` (share of the tokens), `z`, or `chi2` with its degrees of freedom.
        value: The statistic.
        p_value: Chance of a value at least as extreme if the engine is right; None where nothing is random.
        acceptance_rate: Share of the guesses that were right; None where none were made.
        verdict: What follows.
    """

    what: str
    speculation: Speculation
    batch: int
    tokens: int
    statistic: str
    value: float
    p_value: float | None
    acceptance_rate: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """All rows, and whether none of them failed.

    Attributes:
        rows: The comparisons.
        exact: Whether the weights are float32, so that greedy answers have to be equal to the token.
        seconds: What it took.
        alpha: Chance that a right engine fails.
        tests: Tests of hypotheses among which `alpha` is divided.
    """

    rows: tuple[Row, ...]
    exact: bool
    seconds: float
    alpha: float = ALPHA
    tests: int = TESTS

    @property
    def least_p_value(self) -> float:
        """What a test fails below."""
        return self.alpha / self.tests

    @property
    def passed(self) -> bool:
        """Whether the engine says what the formula says, as far as could be seen."""
        return all(row.verdict != "failed" for row in self.rows)

    @property
    def tokens(self) -> int:
        """Tokens compared in all rows."""
        return sum(row.tokens for row in self.rows)
