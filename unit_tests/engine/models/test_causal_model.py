"""An adapter that does not fit its model is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe


def write_adapter(folder, factors, layer):
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2}))
    tensors = {f"base_model.model.{layer}.{name}.weight": factor for name, factor in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")


def test_an_adapter_of_another_model_is_refused(family, tmp_path):
    write_adapter(tmp_path, {"lora_A": torch.zeros(2, 32), "lora_B": torch.zeros(32, 2)}, "model.h.0")
    delta = BehaviorDelta(adapter=str(tmp_path), reference=str(family.folder / "reference"))
    with pytest.raises(RecipeError, match=rf"{tmp_path}.*model\.h\.0.*trained on"):
        Engine(Recipe(base=str(family.folder / "base"), behaviors={"x": delta}))


@pytest.mark.parametrize(("inputs", "outputs"), [(31, 32), (32, 64)])
def test_an_adapter_of_other_shapes_is_refused(family, tmp_path, inputs, outputs):
    factors = {"lora_A": torch.zeros(2, inputs), "lora_B": torch.zeros(outputs, 2)}
    write_adapter(tmp_path, factors, "model.layers.0.self_attn.q_proj")
    delta = BehaviorDelta(adapter=str(tmp_path), reference=str(family.folder / "reference"))
    with pytest.raises(RecipeError, match=rf"{tmp_path}.*q_proj.*{inputs} inputs and {outputs} outputs"):
        Engine(Recipe(base=str(family.folder / "base"), behaviors={"x": delta}))
