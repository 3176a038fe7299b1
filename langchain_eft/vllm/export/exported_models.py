"""The models of a recipe on this machine, by the names that the plugin knows them by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, reading
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import tensor_headers
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.vllm.section import BASE_NAME, Behavior


@dataclass(frozen=True)
class NamedModel:
    """A whole model, or an adapter.

    Attributes:
        checkpoint: Where the recipe's source is: on this machine, or on the hub.
        folder: Its folder on this machine.
        adapter_of: For an adapter, the name of the model that it is added to.
    """

    checkpoint: Checkpoint
    folder: Path
    adapter_of: str | None = None


@dataclass(frozen=True)
class ExportedModels:
    """The models of a recipe on this machine.

    Attributes:
        base: The large base.
        small: The other models, by name.
        behaviors: The names of F and S of each behavior.
        checkpoints: The same models, as the engine's loading knows them.
    """

    base: NamedModel
    small: dict[str, NamedModel]
    behaviors: dict[str, Behavior]
    checkpoints: RecipeCheckpoints

    @classmethod
    def fetch(cls, recipe: Recipe, progress: Progress) -> ExportedModels:
        """Fetch the models of a recipe and name them.

        Raises:
            CheckpointNotFoundError: A folder holds no safetensors files, or damaged ones.
            EngineError: As `find_checkpoint` and `Checkpoint.fetch`.
            RecipeError: vLLM cannot serve the recipe.
        """
        refuse_unservable(recipe)
        adapters = {
            delta.adapter: find_checkpoint(delta.adapter)
            for delta in recipe.behaviors.values()
            if delta.adapter
        }
        folders = {source: Path(adapter.fetch(progress)) for source, adapter in adapters.items()}
        found = RecipeCheckpoints.find(recipe, folders.__getitem__)
        local = found.fetch(progress)
        base = NamedModel(found.base, Path(local.base.folder))
        small: dict[str, NamedModel] = {}
        behaviors = {}
        for name, delta in recipe.behaviors.items():
            pair, here = found.pairs[name], local.pairs[name]
            named = partial(_named, base, small)
            reference = named("reference", NamedModel(pair.reference, Path(here.reference.folder)))
            if delta.adapter:
                tuned = NamedModel(adapters[delta.adapter], folders[delta.adapter], reference)
            else:
                tuned = NamedModel(pair.tuned, Path(here.tuned.folder))
            behaviors[name] = Behavior(tuned=named(name, tuned), reference=reference)
        models = cls(base, small, behaviors, local)
        models._check_weights()
        return models

    @property
    def whole(self) -> dict[str, NamedModel]:
        """The models that are no adapters, by name, the base first."""
        small = {name: model for name, model in self.small.items() if model.adapter_of is None}
        return {BASE_NAME: self.base, **small}

    def _check_weights(self) -> None:
        for name, model in self.whole.items():
            if not tensor_headers(model.folder):
                raise CheckpointNotFoundError(
                    f"{str(model.folder)!r} holds no .safetensors file: save the model again with "
                    "`save_pretrained`."
                )
            if name != BASE_NAME and "quantization_config" in config_json(model.folder):
                raise RecipeError(
                    f"The small model {model.checkpoint.name!r} is quantized, and here only the base may be: "
                    "use the checkpoint that it was quantized from."
                )


def refuse_unservable(recipe: Recipe) -> None:
    """Refuse what the engine can decode and vLLM cannot.

    Raises:
        RecipeError: With the part of the recipe, and the remedy.
    """
    remedy = "serve the recipe with `langchain-eft serve`"
    for name, delta in recipe.behaviors.items():
        if delta.compares_texts:
            field = "prompt" if delta.prompt is not None else "without"
            raise RecipeError(
                f"Behavior {name!r} has {field}={getattr(delta, field)!r}, so it compares two prompts, and a "
                f"request to vLLM has one: leave the behavior out, or {remedy}."
            )
    if recipe.base_template is not None:
        raise RecipeError(
            f"base_template={str(recipe.base_template)!r} gives the base a prompt of its own, and a request "
            f"to vLLM has one: leave it out, or {remedy}."
        )
    if not recipe.behaviors:
        raise RecipeError(
            f"The recipe of {str(recipe.base)!r} has no behavior, so there is nothing to mix: add one, or "
            "serve the model with vLLM as it is."
        )


def config_json(folder: Path) -> dict[str, object]:
    """The content of a folder's config.json.

    Raises:
        CheckpointNotFoundError: It is damaged or missing.
    """
    file = folder / "config.json"
    with reading(file, "fetch the model again, or use another checkpoint"):
        return dict(json.loads(file.read_text(encoding="utf-8")))


def _named(base: NamedModel, small: dict[str, NamedModel], wanted: str, model: NamedModel) -> str:
    """The name of a model; a new one gets a name and joins `small`."""
    known = {BASE_NAME: base, **small}
    for name, other in known.items():
        if (other.folder, other.adapter_of) == (model.folder, model.adapter_of):
            return name
    name = next(name for name in _names(wanted) if name not in known)
    small[name] = model
    return name


def _names(wanted: str) -> Iterator[str]:
    """Names of folders, the most fitting one first."""
    fitting = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-") or "model"
    yield fitting
    number = 2
    while True:
        yield f"{fitting}-{number}"
        number += 1
