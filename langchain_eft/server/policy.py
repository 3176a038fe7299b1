"""What a caller may ask for: which behaviors, with which weights, and how much of the large model."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from langchain_eft.engine.error_text import describe, quoted_names, shown
from langchain_eft.engine.errors import EngineError, RecipeError
from langchain_eft.engine.limits import LARGEST_COEFFICIENT
from langchain_eft.engine.recipe.frozen import FrozenModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import values
from langchain_eft.server.errors import HTTPError

if TYPE_CHECKING:
    from langchain_eft.base import BaseEFT


class PolicyError(EngineError, ValueError):
    """A policy file cannot be read, contradicts itself, or does not fit the model."""


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"The first number, {bounds[0]:g}, is above the second, {bounds[1]:g}: write [smallest, largest]."
        )
    return bounds


_Bound = Annotated[float, Field(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT, allow_inf_nan=False)]
_Range = Annotated[tuple[_Bound, _Bound], AfterValidator(_ordered)]
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Policy(FrozenModel):
    """The ranges that bind a caller. A behavior that a mixture leaves out has weight 0 in it.

    So a range that begins above 0 is a floor: every mixture needs that much of the behavior.
    """

    behaviors: dict[str, _Range] | None = None
    """Smallest and largest weight of each behavior. Behaviors that are not named here may not be used. None
    binds no behavior."""

    upscale_strength: _Range | None = None
    """Smallest and largest `upscale_strength`; None binds none."""

    def range(self, behavior: str) -> tuple[float, float] | None:
        """Smallest and largest weight of a behavior; None where it may not be used."""
        if self.behaviors is None:
            return (0.0, LARGEST_COEFFICIENT)
        return self.behaviors.get(behavior)

    def refined(self, other: Policy) -> Policy:
        """This policy, with the ranges of another in the place of those that both name."""
        behaviors = {**(self.behaviors or {}), **(other.behaviors or {})}
        return Policy(
            behaviors=None if self.behaviors is None and other.behaviors is None else behaviors,
            upscale_strength=other.upscale_strength or self.upscale_strength,
        )

    def check(self, mixture: Mixture, upscale_strength: float) -> None:
        """Refuse what the policy does not allow, at any position of an answer.

        Args:
            mixture: The mixture that the engine would decode.
            upscale_strength: How much of the large model it would add.

        Raises:
            HTTPError: 403, with the behavior, its weight and its range.
        """
        for name in sorted({*mixture.weights, *(self.behaviors or ())}):
            self._check_weight(name, values(mixture.weights.get(name, 0.0)))
        allowed = self.upscale_strength
        if allowed and not allowed[0] <= upscale_strength <= allowed[1]:
            raise _forbidden(
                f"upscale_strength={upscale_strength:g} is outside what this server allows, "
                f"{allowed[0]:g} to {allowed[1]:g}: use a value in this range.",
                "upscale_strength",
            )

    def require(self, behavior: str) -> None:
        """Refuse a behavior that no mixture may have.

        Raises:
            HTTPError: 403, with the behavior.
        """
        if self.behaviors is not None and self.behaviors.get(behavior, (0.0, 0.0))[1] <= 0:
            raise _unusable(behavior, self.behaviors, "behavior")

    def refusal(self, mixture: Mixture, upscale_strength: float) -> str | None:
        """Why `check` refuses a mixture; None if it does not."""
        try:
            self.check(mixture, upscale_strength)
        except HTTPError as error:
            return error.message
        return None

    def _check_weight(self, name: str, weights: list[float]) -> None:
        if self.behaviors is None:
            return
        smallest, largest = self.behaviors.get(name, (0.0, 0.0))
        outside = [weight for weight in weights if not smallest <= weight <= largest]  # NaN is outside
        if not outside:
            return
        if name not in self.behaviors:
            raise _unusable(name, self.behaviors)
        raise _forbidden(
            f"The mixture gives {name!r} the weight {outside[0]:g}, and this server allows {smallest:g} to "
            f"{largest:g}: use a weight in this range at every position of the answer."
        )


def _unusable(behavior: str, usable: Iterable[str], param: str = "mixture") -> HTTPError:
    return _forbidden(
        f"This server does not allow the behavior {shown(behavior)} here: use {quoted_names(usable)}.", param
    )


def _forbidden(message: str, param: str = "mixture") -> HTTPError:
    return HTTPError(403, message, param=param, code="policy")


class PolicyFile(Policy):
    """What a policy file holds: the policy of all callers, those of single keys, and named mixtures."""

    keys: dict[str, Policy] = Field(default_factory=dict)
    """Ranges for single keys, by the key's name. They replace those of the same name above."""

    mixtures: dict[_Name, Annotated[Mixture, BeforeValidator(Mixture.of)]] = Field(default_factory=dict)
    """Mixtures that have a model name of their own."""

    @property
    def general(self) -> Policy:
        """The policy of all callers."""
        return Policy(behaviors=self.behaviors, upscale_strength=self.upscale_strength)


def read_policy(file: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        PolicyError: It cannot be read, or something in it is not a policy.
    """
    try:
        return PolicyFile(**tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(
            f"The policy file {str(file)!r} cannot be read ({error}): give a TOML file."
        ) from error
    except ValidationError as error:
        raise PolicyError(
            f"The policy file {str(file)!r} is not a policy: {describe(error).rstrip('.')}."
        ) from error


def require_consistent(
    llm: BaseEFT, policy: Policy, key_policies: Mapping[str, Policy], mixtures: Mapping[str, Mixture]
) -> None:
    """Refuse policies that name behaviors which the model lacks, and those that its own mixtures break.

    Args:
        llm: The model that is served.
        policy: The policy of all callers.
        key_policies: The policies of single keys, by the key's name.
        mixtures: The named mixtures.

    Raises:
        PolicyError: With the first of them, and the remedy.
        RecipeError: A named mixture that the model cannot decode.
    """
    of_keys = {f"the policy of key {name!r}": policy.refined(own) for name, own in key_policies.items()}
    policies = {"the policy": policy, **of_keys}
    for owner, each in policies.items():
        unknown = set(each.behaviors or ()) - set(llm.recipe.behaviors)
        if unknown:
            raise PolicyError(
                f"In {owner}, there is the unknown behavior {quoted_names(unknown)}: the model has "
                f"{quoted_names(llm.recipe.behaviors)}."
            )
    default = llm.active_mixture
    if refusal := policy.refusal(default, llm.upscale_strength):
        raise PolicyError(
            f"The policy refuses the model's own mixture, {default.as_json()}, so every request without a "
            f"mixture would fail: {refusal} Set another with --mix or --upscale-strength."
        )
    for name, mixture in mixtures.items():
        try:
            llm.recipe.check(mixture)
        except RecipeError as error:
            raise PolicyError(f"The named mixture {name!r} cannot be decoded: {error}") from error
        refusals = [each.refusal(mixture, llm.upscale_strength) for each in policies.values()]
        if all(refusals):
            raise PolicyError(f"No caller may use the named mixture {name!r}: {refusals[0]}")
