"""The section `eft` of a model's config.json: which models vLLM mixes, and what their token ids mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, ValidationError, model_validator

from langchain_eft.engine.error_text import describe, quoted_names, shown
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import Weight

ARCHITECTURE = "EFTForCausalLM"
"""The entry in config.json's `architectures` by which vLLM finds the plugin."""

SECTION = "eft"
"""The key of the section in config.json."""

VERSION: Literal[1] = 1
"""Of the section's format."""

BASE_NAME = "base"
"""The name of the large base among the models of a section."""

IdRange = tuple[int, int]
"""The first of some consecutive token ids, and the id after the last."""


class SmallModel(FrozenModel):
    """Where the weights of a small model are: a whole model, or a LoRA in PEFT's file format."""

    subfolder: str
    """Its folder inside the folder or repository of the served model."""

    adapter_of: str | None = None
    """For an adapter, the name of the model that it is added to. None for a whole model."""

    negated: bool = False
    """Whether an adapter has a negative scale: then it takes its behavior away."""


class Behavior(FrozenModel):
    """The names of the models F and S of a behavior, `log F - log S`."""

    tuned: str
    reference: str


class EFTSection(FrozenModel):
    """What vLLM is told about a recipe. `langchain-eft export` writes it; the plugin reads it.

    A name of a model is a key of `models`, or `base` for the large base.
    """

    version: Literal[1] = VERSION

    base_name: str
    """The large base as its recipe names it, for messages."""

    base_architectures: tuple[str, ...] = Field(min_length=1)
    """The base's own `architectures`."""

    models: Annotated[dict[str, SmallModel], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, SmallModel]()
    )
    """The small models, by name. Adapters of one reference name it as their `adapter_of`."""

    behaviors: Annotated[dict[str, Behavior], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, Behavior]()
    )

    mixture: Annotated[dict[str, Weight], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, Weight]()
    )
    """The mixture of requests that name none."""

    allow_negative_weights: bool = False
    """As in `Recipe`."""

    vocabulary_size: PositiveInt
    """Rows of the smallest embedding matrix. Ids from here on are never generated."""

    common: tuple[IdRange, ...]
    """Ids that mean the same token in all models. Other ids are never generated."""

    unscaled: tuple[int, ...] = ()
    """Ids whose probability comes from the small models alone, for the base was never trained on them."""

    end_ids: tuple[int, ...]
    """Ids that end an answer."""

    window: PositiveInt
    """Tokens that a prompt and its answer may have together: the smallest window of all models."""

    @classmethod
    def of(cls, config: Any) -> Self:
        """The section of a model's configuration.

        Args:
            config: transformers' configuration, or the content of a config.json.

        Raises:
            RecipeError: There is no section, it has another version, or its content is wrong.
        """
        section = config.get(SECTION) if isinstance(config, Mapping) else getattr(config, SECTION, None)
        if not isinstance(section, Mapping):
            raise RecipeError(
                f"The model's config.json has no section {SECTION!r}: serve a folder that `langchain-eft "
                "export` wrote."
            )
        if section.get("version", VERSION) != VERSION:
            raise RecipeError(
                f"The section {SECTION!r} of config.json has version {shown(section['version'])}, and this "
                f"langchain-eft reads version {VERSION}: export the recipe again with this release, or "
                "install the release that wrote it."
            )
        try:
            return cls.model_validate(dict(section))
        except ValidationError as error:
            raise RecipeError(
                f"The section {SECTION!r} of config.json is wrong ({describe(error)}): export the recipe "
                "again with `langchain-eft export`."
            ) from error

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if BASE_NAME in self.models:
            raise ValueError(f"A small model is called {BASE_NAME!r}, which is the name of the large base.")
        whole = {BASE_NAME, *(name for name, model in self.models.items() if model.adapter_of is None)}
        for name, model in self.models.items():
            if model.adapter_of is not None and model.adapter_of not in whole:
                raise ValueError(
                    f"The adapter {name!r} is added to {model.adapter_of!r}; whole models are "
                    f"{quoted_names(whole)}."
                )
        known = {BASE_NAME, *self.models}
        for behavior in self.behaviors.values():
            if unknown := {behavior.tuned, behavior.reference} - known:
                raise ValueError(
                    f"No model is called {quoted_names(unknown)}: there are {quoted_names(known)}."
                )
        self.recipe.check(self.default_mixture)
        return self

    @property
    def recipe(self) -> Recipe:
        """The behaviors as a recipe, which refuses mixtures that it cannot decode."""
        behaviors = {
            name: BehaviorDelta(tuned=behavior.tuned, reference=behavior.reference)
            for name, behavior in self.behaviors.items()
        }
        return Recipe(
            base=self.base_name, behaviors=behaviors, allow_negative_weights=self.allow_negative_weights
        )

    @property
    def passes(self) -> dict[str, tuple[str, ...]]:
        """The models that share a forward pass: each whole model, and with it its adapters."""
        whole = [BASE_NAME, *(name for name, model in self.models.items() if model.adapter_of is None)]
        return {
            name: (name, *(other for other, model in self.models.items() if model.adapter_of == name))
            for name in whole
        }

    @property
    def default_mixture(self) -> Mixture:
        """The mixture of requests that name none."""
        return Mixture.of(self.mixture)

    @property
    def common_ids(self) -> frozenset[int]:
        """Ids that mean the same token in all models."""
        return frozenset(chain.from_iterable(range(*ids) for ids in self.common))


def id_ranges(ids: Iterable[int]) -> tuple[IdRange, ...]:
    """Ids as ranges of consecutive ones, in ascending order."""
    ranges: list[IdRange] = []
    for token in sorted(ids):
        if ranges and token == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], token + 1)
        else:
            ranges.append((token, token + 1))
    return tuple(ranges)
