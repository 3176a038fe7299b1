"""A draft model as vLLM loads one: a whole model with embeddings, its adapter merged into its weights."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.memory import TensorHeader, tensor_headers
from langchain_eft.engine.models.lora import LoraUpdate
from langchain_eft.vllm.export.adapters import fitting_adapter
from langchain_eft.vllm.export.exported_models import ExportedModels, NamedModel, config_json
from langchain_eft.vllm.section import BASE_NAME

_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""Weights that the base lends to a small model that was saved without embeddings."""


@dataclass(frozen=True)
class DraftModel:
    """The tuned model of a behavior as a draft model.

    Attributes:
        name: Its name among the models of the recipe.
        model: The whole model that it is, or that its adapter is added to.
        weights: Its weights, without the adapter.
        updates: Those of its adapter, by the names of the weights that they are added to.
    """

    name: str
    model: NamedModel
    weights: dict[str, TensorHeader]
    updates: dict[str, LoraUpdate]

    @classmethod
    def of(cls, models: ExportedModels, behavior: str) -> DraftModel:
        """The draft model of a behavior.

        Raises:
            CheckpointNotFoundError: A file is missing or damaged.
            RecipeError: There is no such behavior, or its tuned model cannot draft for the base.
        """
        if behavior not in models.behaviors:
            raise RecipeError(
                f"The draft {behavior!r} is not a behavior: the recipe has {quoted_names(models.behaviors)}."
            )
        name = models.behaviors[behavior].tuned
        if name == BASE_NAME:
            raise RecipeError(
                f"The tuned model of behavior {behavior!r} is the base, which cannot draft for itself: "
                "choose another behavior."
            )
        tuned = models.small[name]
        model = tuned if tuned.adapter_of is None else models.whole[tuned.adapter_of]
        _refuse_other_vocabulary(model, models.base)
        weights = tensor_headers(model.folder)
        if _EMBEDDINGS not in weights:
            lent = tensor_headers(models.base.folder)
            weights |= {name: lent[name] for name in (_EMBEDDINGS, _HEAD) if name in lent}
        updates = {} if tuned is model else fitting_adapter(tuned.folder, model.folder).updates
        return cls(name, model, weights, {f"{layer}.weight": update for layer, update in updates.items()})

    @property
    def is_whole(self) -> bool:
        """Whether the model's own folder serves as it is."""
        return not self.updates and all(
            tensor.file.parent == self.model.folder for tensor in self.weights.values()
        )

    @property
    def nbytes(self) -> int:
        """Size of the weights that `write` writes, in bytes."""
        return sum(
            4 * math.prod(tensor.shape) if name in self.updates else tensor.nbytes
            for name, tensor in self.weights.items()
        )

    def write(self, folder: Path) -> None:
        """Write the model to a new folder. Merged weights are float32: bfloat16 would round updates away."""
        folder.mkdir(parents=True)
        shutil.copyfile(self.model.folder / "config.json", folder / "config.json")
        files = sorted({tensor.file for tensor in self.weights.values()})
        places: dict[str, str] = {}
        for number, file in enumerate(files):
            with safe_open(file, "pt") as tensors:
                own = [name for name, tensor in self.weights.items() if tensor.file == file]
                merged = {name: self._merged(name, tensors.get_tensor(name)) for name in own}
            shard = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
            save_file(merged, folder / shard, metadata={"format": "pt"})
            places |= dict.fromkeys(own, shard)
        index = {"metadata": {"total_size": self.nbytes}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def _merged(self, name: str, weight: Tensor) -> Tensor:
        update = self.updates.get(name)
        return weight if update is None else weight.float() + update.up @ update.down


def _refuse_other_vocabulary(small: NamedModel, base: NamedModel) -> None:
    """Refuse a draft model whose embedding matrix has another number of rows than the base's.

    Raises:
        RecipeError: With both numbers.
    """
    rows, base_rows = (config_json(model.folder).get("vocab_size") for model in (small, base))
    if rows != base_rows:
        raise RecipeError(
            f"The draft model {small.checkpoint.name!r} has {rows} rows of embeddings, and the base "
            f"{base.checkpoint.name!r} has {base_rows}; vLLM needs as many: serve without a draft model."
        )
