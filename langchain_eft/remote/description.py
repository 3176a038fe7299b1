"""What `langchain-eft serve` tells clients that render and read for themselves."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from langchain_eft.engine.cache_folder import CACHE_VARIABLE, cache_folder
from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.errors import CheckpointCacheError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, PackagedModel, Recipe, read_template
from langchain_eft.engine.recipe.frozen import FrozenModel
from langchain_eft.engine.recipe.mixture import Mixture


class Description(FrozenModel):
    """A model of a server. It names weights and holds none, and no path of the server's machine."""

    model: str
    """The server's name of the model."""

    recipe: Recipe
    """Names of weights, and the behaviors that the caller may use. Templates are beside it."""

    base_template: str | None
    """The template for base and references, as text."""

    mixture: Mixture
    """The mixture of requests that name none."""

    tokenizer: str
    """Hash of the tokenizer's files, by which they are fetched and kept."""

    end_ids: tuple[int, ...]
    """Ids that end an answer."""

    capacity: Capacity
    """How many tokens prompts and answers may have."""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, said: Any) -> Any:
        if (count := _count(said)) > _MOST_VALUES:  # before an error is made of each
            raise ValueError(f"{count} values: a description has a few hundred.")
        return said

    @classmethod
    def of(
        cls,
        model: str,
        recipe: Recipe,
        mixture: Mixture,
        *,
        tokenizer: str,
        end_ids: frozenset[int],
        capacity: Capacity,
    ) -> Self:
        """The description of a model.

        Args:
            model: The server's name of it.
            recipe: Its weights, as the server loads them.
            mixture: Its own mixture.
            tokenizer: Hash of its tokenizer's files.
            end_ids: Ids that end an answer.
            capacity: How many tokens prompts and answers may have.
        """
        template = None if recipe.base_template is None else read_template(recipe.base_template)
        return cls(
            model=model,
            recipe=_without_paths(recipe),
            base_template=template,
            mixture=mixture,
            tokenizer=tokenizer,
            end_ids=tuple(sorted(end_ids)),
            capacity=capacity,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of everything: a client with another one would send prompts of another model."""
        return sha256(self.model_dump_json().encode()).hexdigest()

    def for_caller(self, behaviors: set[str], mixture: Mixture) -> Self:
        """The same for one caller.

        Args:
            behaviors: The behaviors that the caller may use.
            mixture: The mixture of requests that name none.
        """
        usable = {name: delta for name, delta in self.recipe.behaviors.items() if name in behaviors}
        recipe = self.recipe.model_copy(update={"behaviors": Recipe(base="", behaviors=usable).behaviors})
        return self.model_copy(update={"recipe": recipe, "mixture": mixture})

    def local_recipe(self) -> Recipe:
        """The recipe for prompts that are rendered here. A template becomes a file of the cache folder.

        Raises:
            CheckpointCacheError: The cache folder cannot be written.
        """
        if self.base_template is None:
            return self.recipe
        folder = cache_folder() / "templates"
        file = folder / f"{sha256(self.base_template.encode()).hexdigest()}.jinja"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(self.base_template, encoding="utf-8")
        except OSError as error:
            raise CheckpointCacheError(
                f"The server's template cannot be kept in {str(folder)!r} ({error}): set {CACHE_VARIABLE} to "
                "a folder that can be written."
            ) from error
        return self.recipe.model_copy(update={"base_template": file})


_MOST_VALUES = 10_000


def _count(value: Any) -> int:
    """Values in a JSON document, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


def _without_paths(recipe: Recipe) -> Recipe:
    """The recipe with names for folders of this machine, and without templates, which are files of it."""
    behaviors = {
        name: BehaviorDelta(
            tuned=_public_name(delta.tuned),
            adapter=_public_name(delta.adapter),
            reference=_public_name(delta.reference),
            prompt=delta.prompt,
            without=delta.without,
        )
        for name, delta in recipe.behaviors.items()
    }
    return Recipe(
        base=_public_name(recipe.base),
        behaviors=behaviors,
        unscaled_tokens=recipe.unscaled_tokens,
        allow_negative_weights=recipe.allow_negative_weights,
    )


def _public_name(source: Any) -> Any:
    """A hub id as it is; of a file or folder, the last part of its path."""
    if source is None or isinstance(source, PackagedModel):
        return source if source is None else source.hub
    path = Path(source).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else source
