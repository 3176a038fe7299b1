"""The rule for `allow_negative_weights`: which models a formula must not divide by without it.

log p is a weighted sum of log-probabilities, so p is a product of powers of models. Division by a reference
is the method. Division by the base or by a tuned model favors what that model avoids, for example what safety
training taught it to avoid (emulated disalignment, Zhou et al. 2024).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping
from typing import TypeVar

from langchain_eft.engine.errors import RecipeError

M = TypeVar("M", bound=Hashable)

_ROUNDING = 1e-9
"""Sums such as 0.1 + 0.2 - 0.3 are not exactly 0."""


def refuse_negative_exponents(
    distributions: Iterable[Iterable[tuple[M, float]]],
    base: tuple[M, str],
    pairs: Mapping[str, tuple[M, M]],
    negated: Container[M] = (),
) -> None:
    """Refuse a mixture that divides by the base or by a tuned model of its behaviors.

    Args:
        distributions: Every log p that tokens are drawn from: models, each with a coefficient of its
            log-probabilities. The coefficients of one model add up, whatever prompts it reads.
        base: The base, and what its recipe calls it.
        pairs: Tuned model and reference of every behavior in the mixture.
        negated: Tuned models whose adapter has a negative scale. To first order they are the negative of the
            behavior, so they need an exponent of 0.

    Raises:
        RecipeError: With the first such model and its exponent.
    """
    guarded = {
        tuned: f"the tuned model of behavior {name!r}"
        for name, (tuned, reference) in pairs.items()
        if tuned != reference  # else only their prompts differ
    } | {base[0]: f"the base {base[1]!r}"}
    for coefficients in distributions:
        _refuse(coefficients, guarded, negated)


def _refuse(coefficients: Iterable[tuple[M, float]], guarded: Mapping[M, str], negated: Container[M]) -> None:
    exponents: Counter[M] = Counter()
    for model, coefficient in coefficients:
        exponents[model] += coefficient  # type: ignore[assignment]
    for model, description in guarded.items():
        exponent = exponents[model]
        if not exponent >= -_ROUNDING:  # true for NaN too
            raise RecipeError(
                f"The weights give {description} the exponent {exponent:.4g}. A negative exponent favors "
                "what the model avoids, which can undo safety training. Lower the weights of the behaviors "
                "whose `reference` it is, or set `allow_negative_weights=True`."
            )
        if model in negated and exponent > _ROUNDING:
            raise RecipeError(
                f"The adapter of {description} has a negative `lora_alpha`. It takes the behavior away, as a "
                "negative weight does, which can undo safety training. Make `lora_alpha` positive, or set "
                "`allow_negative_weights=True`."
            )
