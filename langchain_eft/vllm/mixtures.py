"""What a request to vLLM says about its mixture, and the formula that this makes.

vLLM hands `vllm_xargs` of a request on as `SamplingParams.extra_args`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.error_text import describe, quoted_names
from langchain_eft.engine.errors import RecipeError, RequestError
from langchain_eft.engine.limits import LARGEST_COEFFICIENT, SMALLEST_SHARE
from langchain_eft.engine.recipe.exponents import refuse_negative_exponents
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.notation import parse_mixture
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.vllm.section import BASE_NAME, EFTSection

_OTHERS = frozenset({"kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode"})
"""Extra arguments that vLLM itself writes and reads."""


class _Arguments(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    mixture: str | None = None
    """Such as `pirate=0.7,concise=1..0/32`, or `none`. None is the mixture of the section."""

    upscale_strength: Annotated[float, Field(ge=0, le=LARGEST_COEFFICIENT, allow_inf_nan=False)] = 1.0
    upscale_top_p: Annotated[float, Field(ge=SMALLEST_SHARE, le=1)] = 1.0


def request_formula(section: EFTSection, extra_args: Mapping[str, Any] | None) -> Formula[str]:
    """The formula of one request. Its terms are names of models of the section.

    Args:
        section: What vLLM was told about the recipe.
        extra_args: The request's extra arguments.

    Raises:
        RequestError: An unknown or malformed argument.
        RecipeError: A mixture that the recipe cannot decode.
    """
    own = {name: value for name, value in (extra_args or {}).items() if name not in _OTHERS}
    if unknown := own.keys() - _Arguments.model_fields.keys():
        raise RequestError(
            f"`vllm_xargs` has {quoted_names(unknown)}, which means nothing here: use "
            f"{quoted_names(_Arguments.model_fields)}."
        )
    try:
        arguments = _Arguments.model_validate(own)
        mixture = _mixture(section, arguments.mixture)
    except ValidationError as error:
        raise RequestError(f"`vllm_xargs` is wrong: {describe(error)}.") from error
    recipe = section.recipe
    recipe.check(mixture)
    weights = mixture.active()
    refuse_gates(weights)
    pairs = {name: (behavior.tuned, behavior.reference) for name, behavior in section.behaviors.items()}
    formula = build_formula(
        BASE_NAME,
        pairs,
        weights,
        arguments.upscale_strength,
        arguments.upscale_top_p,
        unscaled=bool(section.unscaled),
    )
    if not section.allow_negative_weights:
        refuse_negative_exponents(
            formula.distributions(),
            (BASE_NAME, section.base_name),
            {name: pairs[name] for name in weights},
            {name for name, model in section.models.items() if model.negated},
        )
    return formula


def refuse_gates(weights: Mapping[str, Weight]) -> None:
    """Refuse weights that depend on the base's logits: the plugin knows a row's weights before they exist.

    Raises:
        RecipeError: With the first behavior whose weight has a gate.
    """
    for name, weight in weights.items():
        if isinstance(weight, Gate):
            raise RecipeError(
                f"The weight of behavior {name!r} has a gate, and vLLM cannot decode gates: use a number, a "
                "Ramp or FirstTokens, or decode with EFTChatModel itself."
            )


def _mixture(section: EFTSection, notation: str | None) -> Mixture:
    if notation is None:
        return section.default_mixture
    return Mixture.of(parse_mixture(entry.strip() for entry in notation.split(",")))
