"""The outcome of a verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langchain_eft.diagnostics.verify.plan import ALPHA, TESTS
from langchain_eft.engine.request import Speculation

CheckOutcome = Literal["passed", "failed", "not compared bit for bit"]


@dataclass(frozen=True)
class Check:
    """One comparison of the engine with full forward passes.

    Attributes:
        what: The compared answers, in words.
        speculation: Draft length.
        batch_size: Requests decoded together.
        tokens: Tokens compared.
        statistic: The kind of `value`: `equal` (share of the tokens), `z`, or `chi2` with its degrees of
            freedom.
        value: The statistic.
        p_value: Probability of a value at least as extreme if the engine is right; None for greedy answers.
        acceptance_rate: Share of accepted draft tokens; None without drafts.
        outcome: Whether the check passed.
    """

    what: str
    speculation: Speculation
    batch_size: int
    tokens: int
    statistic: str
    value: float
    p_value: float | None
    acceptance_rate: float | None
    outcome: CheckOutcome


@dataclass(frozen=True)
class VerificationReport:
    """All checks of a verification.

    Attributes:
        checks: The checks.
        exact: Whether the weights are float32. Then greedy answers must be equal to the token.
        seconds: Duration of the verification.
        alpha: Probability that the verification fails although the engine is right.
        tests: Number of statistical tests that share `alpha`.
    """

    checks: tuple[Check, ...]
    exact: bool
    seconds: float
    alpha: float = ALPHA
    tests: int = TESTS

    @property
    def least_p_value(self) -> float:
        """The smallest p-value that passes."""
        return self.alpha / self.tests

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.outcome != "failed" for check in self.checks)

    @property
    def tokens(self) -> int:
        """Tokens compared in all checks."""
        return sum(check.tokens for check in self.checks)
