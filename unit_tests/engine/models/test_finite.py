"""A model with a weight that is no number is refused when it is loaded, with the weight's name."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.models.finite import all_finite
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.tiny import config, tokenizer

UNTIED = "model.embed_tokens.weight"  # a forward pass reads few of its rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_is_found(value, dtype):
    tensor = torch.randn(300, 300).to(dtype)
    assert all_finite(tensor)
    tensor[123, 45] = value
    assert not all_finite(tensor)


def test_large_values_are_numbers():
    assert all_finite(torch.full((100, 100), 3e38))
    assert all_finite(torch.full((100, 100), 6e4, dtype=torch.float16))


@pytest.mark.parametrize("weight", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", UNTIED])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_with_a_weight_that_is_no_number_is_refused(tmp_path, weight, dtype):
    settings = config(32, 2, len(tokenizer()))
    settings.tie_word_embeddings = weight != UNTIED
    LlamaForCausalLM(settings).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[weight].view(-1)[7] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointNotFoundError, match=rf"'{weight}' of '{tmp_path}'.*fetch the model again"):
        Engine(Recipe(base=str(tmp_path)), EngineConfig(kv_cache_tokens=64, dtype=dtype))
