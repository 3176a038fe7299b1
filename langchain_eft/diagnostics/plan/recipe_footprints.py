"""The models of a recipe and their sizes, from configurations alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from langchain_eft.diagnostics.plan.footprint import Footprint, footprint
from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import count_weights
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture


@dataclass(frozen=True)
class RecipeFootprints:
    """The models of a recipe, and the size of each.

    Attributes:
        checkpoints: The checkpoints of the recipe.
        placement: Their device and precision.
    """

    checkpoints: RecipeCheckpoints
    placement: Placement

    @cached_property
    def footprints(self) -> dict[Checkpoint, Footprint]:
        """The size of each model, the base first."""
        return {each: footprint(each, self.placement.dtype) for each in self.checkpoints.unique}

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values of one token. Each adapter has keys and values of its own."""
        return sum(self._variants(each) * model.kv_bytes for each, model in self.footprints.items())

    @property
    def state_bytes(self) -> int:
        """Bytes of recurrent states of one text. Each adapter has states of its own."""
        return sum(self._variants(each) * model.state_bytes for each, model in self.footprints.items())

    def _variants(self, checkpoint: Checkpoint) -> int:
        return 1 + len(self.checkpoints.adapters(checkpoint))

    def placement_of(self, checkpoint: Checkpoint) -> Placement:
        """Device and precision of a model."""
        return self.placement if checkpoint == self.checkpoints.base else self.placement.small

    def role(self, checkpoint: Checkpoint) -> str:
        """The role of a model in the recipe, in words."""
        if checkpoint == self.checkpoints.base:
            return "base"
        pairs = self.checkpoints.pairs.items()
        tuned = [name for name, pair in pairs if checkpoint == pair.tuned != pair.reference]
        reference = [name for name, pair in pairs if checkpoint == pair.reference]
        roles = [
            *(f"tuned {name}" for name in tuned),
            *([f"reference of {', '.join(reference)}"] if reference else []),
        ]
        return " and ".join(roles)

    def bytes_read(self, terms: Iterable[Term]) -> float:
        """Bytes of weights that one pass over `terms` reads. Each model and each shared head counts once."""
        order = list(self.footprints)
        indices = {term.model for term in terms}
        total = 0
        for index in indices:
            model = self.footprints[order[index]]
            total += model.bytes_read(self.placement_of(order[index]))
            if model.borrows_head and 0 in indices and index:
                total -= model.head_bytes(self.placement)
        return total


def adapter_config(source: str) -> Path:
    """A folder with the configuration of an adapter; its weights may be missing."""
    checkpoint = find_checkpoint(source)
    if checkpoint.path is not None:
        return checkpoint.path
    from huggingface_hub import hf_hub_download

    hub = checkpoint.hub
    assert hub is not None  # noqa: S101  (a checkpoint has a path or a hub model)
    file = hf_hub_download(hub.repo, "adapter_config.json", revision=hub.revision, subfolder=hub.path or None)
    return Path(file).parent


def adapter_weights(source: str) -> int:
    """Number of weights of an adapter, from the header of its file or from its size on the hub."""
    checkpoint = find_checkpoint(source)
    if checkpoint.path is not None:
        count = count_weights(checkpoint.path)
        return count.linear + count.other
    return checkpoint.listing.weight_bytes // 4 if checkpoint.listing else 0  # PEFT saves float32


def formula_of(
    recipe: Recipe, models: RecipeFootprints, mixture: Mixture, upscale_strength: float, upscale_top_p: float
) -> Formula[Term]:
    """The formula of a request."""
    checkpoints = models.checkpoints
    index = {checkpoint: i for i, checkpoint in enumerate(models.footprints)}
    return build_formula(
        Term(index[checkpoints.base], prompt_name=recipe.base_prompt_name),
        {name: checkpoints.terms(name, recipe, index.__getitem__) for name in checkpoints.pairs},
        mixture.active(),
        upscale_strength,
        upscale_top_p,
        lambda term: models.bytes_read([term]),
        lambda term: replace(term, prompt_name=recipe.base_prompt_name),
    )
