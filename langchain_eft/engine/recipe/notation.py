"""Mixtures in writing: `pirate=0.7,concise=1..0/32`, as on the command line and in names of models.

A slash precedes where a weight holds, and a colon what holds elsewhere: `pirate=1/16:0.3` for 16 tokens,
`pirate=1/below0.4:0.3` where the base's confidence is at most 0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from langchain_eft.engine.error_text import describe, shown
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.gate import MEASURES, Gate
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp, Weight

NOTHING = "none"
"""The word for the empty mixture, which is the base model alone."""

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_RAMP = re.compile(rf"(?P<start>{_NUMBER})\.\.(?P<end>{_NUMBER})/(?P<tokens>\d+)")
_FIRST_TOKENS = re.compile(rf"(?P<weight>{_NUMBER})/(?P<tokens>\d+)(?::(?P<then>{_NUMBER}))?")
_GATE = re.compile(
    rf"(?P<weight>{_NUMBER})/(?:(?P<measure>{'|'.join(MEASURES)})-)?"
    rf"(?:below(?P<below>{_NUMBER})|above(?P<above>{_NUMBER}))(?::(?P<otherwise>{_NUMBER}))?"
)


def parse_mixture(entries: Iterable[str]) -> dict[str, Weight]:
    """Parse a mixture such as `["pirate=0.7", "concise=1..0/32"]`.

    Args:
        entries: One NAME=WEIGHT for each behavior, or `none` alone for the base model alone.

    Raises:
        RecipeError: An entry has another form, or a behavior occurs twice.
    """
    entries = list(entries)
    if entries == [NOTHING]:
        return {}
    mixture: dict[str, Weight] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        if name in mixture:
            raise RecipeError(f"{name!r} is in the mixture twice: give every behavior one weight.")
        mixture[name] = _parse_weight(entry, weight)
    return mixture


def as_mapping(mixture: Any) -> Any:
    """A mixture in writing, such as `"pirate=0.7,concise=1"`, as a mapping; anything else as it is.

    Raises:
        RecipeError: As `parse_mixture`.
    """
    if isinstance(mixture, str):
        return parse_mixture(entry.strip() for entry in mixture.split(","))
    return mixture


def format_mixture(mixture: Mapping[str, Any], separator: str = " ") -> str:
    """Write a mixture as `parse_mixture` reads it, the behaviors in the order of `mixture`."""
    weights = Mixture.of(mixture).weights
    return separator.join(f"{name}={_format_weight(weights[name])}" for name in mixture) or NOTHING


def _parse_weight(entry: str, weight: str) -> Weight:
    with suppress(ValueError):
        return float(weight)
    if match := _RAMP.fullmatch(weight):
        return _build_schedule(entry, Ramp, **match.groupdict())
    if match := _FIRST_TOKENS.fullmatch(weight):
        return _build_schedule(entry, FirstTokens, **match.groupdict("0"))
    if match := _GATE.fullmatch(weight):
        given = {name: value for name, value in match.groupdict().items() if value is not None}
        return _build_schedule(entry, Gate, **given)
    raise RecipeError(
        f"{shown(entry)} is not a valid part of a mixture: write NAME=WEIGHT, for example pirate=0.7, "
        "pirate=0..1/32 (from 0 to 1 over 32 tokens), pirate=1/16:0.3 (1 for 16 tokens, then 0.3) or "
        "pirate=1/below0.4:0.3 (1 where the base's confidence is at most 0.4, else 0.3), or "
        f"{NOTHING!r} alone for the base model alone."
    )


def _build_schedule(entry: str, kind: type[Ramp] | type[FirstTokens] | type[Gate], **fields: str) -> Weight:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{shown(entry)} is not a valid part of a mixture: {describe(error)}.") from error


def _format_weight(weight: Weight) -> str:
    match weight:
        case Ramp():
            return f"{weight.start:g}..{weight.end:g}/{weight.tokens}"
        case FirstTokens():
            return f"{weight.weight:g}/{weight.tokens}:{weight.then:g}"
        case Gate():
            side = "above" if weight.below is None else "below"
            measure = "" if weight.measure == "confidence" else f"{weight.measure}-"
            return f"{weight.weight:g}/{measure}{side}{weight.threshold:g}:{weight.otherwise:g}"
    return f"{weight:g}"
