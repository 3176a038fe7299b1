"""The plan of a recipe on one machine, in this engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from langchain_eft.diagnostics.plan.memory import Memory, Part
from langchain_eft.diagnostics.plan.recipe_footprints import RecipeFootprints, adapter_config, formula_of
from langchain_eft.diagnostics.plan.speed import Speed, speeds_of
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import free_memory, gib
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture

CONTEXT = 1024
"""Tokens of prompt and answer to plan for each request."""


@dataclass(frozen=True)
class RecipePlan:
    """The memory and the best speed of a recipe on a machine.

    Attributes:
        device: The device that the recipe is planned for.
        free: Bytes of free memory on it.
        bytes_per_second: Its memory bandwidth; None if it is unknown.
        parts: The parts that take memory.
        kv_bytes: Bytes of keys and values of one token, over all models.
        window: Longest prompt and answer together, in tokens.
        speeds: Speeds of the base alone, of plain decoding and of speculative decoding.
        remedies: Settings that make the recipe fit; empty if it fits, or if no setting is enough.
    """

    device: str
    free: int
    bytes_per_second: float | None
    parts: tuple[Part, ...]
    kv_bytes: int
    window: int
    speeds: tuple[Speed, ...]
    remedies: tuple[str, ...]

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the free memory is enough."""
        return self.needed <= self.free

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        sizes = f"it needs {gib(self.needed)}, and {gib(self.free)} are free on {self.device}"
        if self.fits:
            return f"Fits: {sizes}."
        remedies = "; ".join(self.remedies) or "use a machine with more memory, or smaller models"
        return f"Does not fit: {sizes}. To make it fit: {remedies}."

    def as_json(self) -> dict[str, Any]:
        """Everything as numbers and strings."""
        return {**asdict(self), "needed": self.needed, "fits": self.fits, "verdict": self.verdict}


def plan_recipe(
    recipe: Recipe,
    mixture: Mixture,
    config: EngineConfig,
    *,
    upscale_strength: float = 1.0,
    upscale_top_p: float = 1.0,
    context: int = CONTEXT,
    free: int | None = None,
    bytes_per_second: float | None = None,
) -> RecipePlan:
    """Estimate the memory and the best speed of a recipe.

    Args:
        recipe: The models.
        mixture: The mixture of the requests.
        config: The settings of the engine. The plan is for `max_batch_size` requests at once.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        context: Tokens of prompt and answer of each request, for each of the prompts that its models read.
        free: Bytes of free memory of another machine, which is planned as a GPU; None for this machine.
        bytes_per_second: Memory bandwidth.

    Raises:
        CheckpointNotFoundError: A configuration cannot be found.
        RecipeError: The models cannot be combined, or cannot be placed as the settings say.
        UnsupportedModelError: The engine cannot decode a model.
    """
    if free is not None and config.dtype == "auto":
        config = config.model_copy(update={"dtype": "bfloat16"})
    placement = Placement.of(config)
    checkpoints = RecipeCheckpoints.find(recipe, adapter_config)
    checkpoints.check(placement)
    models = RecipeFootprints(checkpoints, placement)
    formula = formula_of(recipe, models, mixture, upscale_strength, upscale_top_p)
    num_prompts = len({term.prompt_name for term in formula.terms})
    memory = Memory(recipe, models, config, num_prompts, context)
    free_bytes = free_memory(placement.device) if free is None else free
    return RecipePlan(
        device=str(placement.device) if free is None else "the given machine",
        free=free_bytes,
        bytes_per_second=bytes_per_second,
        parts=tuple(memory.parts()),
        kv_bytes=models.kv_bytes,
        window=memory.window,
        speeds=tuple(speeds_of(formula, models, bytes_per_second)),
        remedies=tuple(memory.remedies(free_bytes)),
    )
