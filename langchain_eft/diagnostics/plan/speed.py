"""Upper bounds of the speed of one request at a time, from memory bandwidth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from langchain_eft.diagnostics.plan.recipe_footprints import RecipeFootprints
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS, expected_tokens

ACCEPTANCE_RATES = (0.5, 0.7, 0.9)
"""Shares of accepted draft tokens to plan for. Prose is near the lower end, tool calls and refusals near the
upper end."""


@dataclass(frozen=True)
class Speed:
    """An upper bound of the speed of one request at a time: memory bandwidth over bytes of weights.

    Attributes:
        what: The way of decoding.
        bytes_per_token: Bytes of weights that are read for each token of an answer.
        tokens_per_second: The bandwidth over these bytes; None if the bandwidth is unknown.
    """

    what: str
    bytes_per_token: float
    tokens_per_second: float | None


def speeds_of(
    formula: Formula[Term], models: RecipeFootprints, bytes_per_second: float | None
) -> Iterable[Speed]:
    """Speeds of the base alone, of plain decoding, and of the best draft length by acceptance rate."""

    def speed(what: str, bytes_per_token: float) -> Speed:
        rate = None if bytes_per_second is None else bytes_per_second / bytes_per_token
        return Speed(what, bytes_per_token, rate)

    verify, draft = models.bytes_read(formula.terms), models.bytes_read(formula.draft_terms)
    yield speed("base alone", models.bytes_read([formula.base]))
    yield speed("plain", verify)
    if formula.draft_terms:
        for rate in ACCEPTANCE_RATES:
            bytes_per_token, length = min(
                ((k * draft + verify) / expected_tokens([rate] * k), k) for k in DRAFT_LENGTHS
            )
            yield speed(f"{length} drafted, {rate:.0%} accepted", bytes_per_token)
