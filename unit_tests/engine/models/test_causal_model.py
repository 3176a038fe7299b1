"""An adapter that does not fit its model is refused."""

import pytest
import torch
from safetensors.torch import save_file

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe


def test_an_adapter_of_another_model_is_refused(family, tmp_path):
    config = family.folder / "one" / "adapter_config.json"
    (tmp_path / config.name).write_text(config.read_text())
    save_file(
        {f"base_model.model.model.h.0.{m}.weight": torch.zeros(2, 2) for m in ("lora_A", "lora_B")},
        tmp_path / "adapter_model.safetensors",
    )
    delta = BehaviorDelta(adapter=str(tmp_path), reference=str(family.folder / "reference"))
    with pytest.raises(RecipeError, match=r"model\.h\.0.*trained on"):
        Engine(Recipe(base=str(family.folder / "base"), behaviors={"x": delta}))
