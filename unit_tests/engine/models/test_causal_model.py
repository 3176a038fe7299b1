"""Adapters that do not fit are refused, and output matrices give float32 logits."""

import json

import pytest
import torch
from safetensors.torch import save_file

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.causal_model import project
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


@pytest.mark.parametrize("given", [False, True], ids=["new memory", "given memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_with_one_output_matrix_share_a_product(dtype, given):
    torch.manual_seed(0)
    shared, other = torch.randn(9, 4).to(dtype), torch.randn(8, 6).to(dtype)  # the first has padding
    states = [torch.randn(n, width).to(dtype) for n, width in ((2, 4), (3, 4), (1, 6))]
    own_logits = torch.randn(2, 8).to(dtype)
    hidden = [(shared, states[0]), (shared, states[1]), (None, own_logits), (other, states[2])]
    expected = [(x @ head.t())[:, :8] for x, head in ((states[0], shared), (states[1], shared))]
    expected = torch.cat([*expected, own_logits, states[2] @ other.t()]).float()
    out = torch.full((8, 8), torch.nan) if given else None
    actual = project(hidden, 8, torch.device("cpu"), out)
    assert actual.dtype == torch.float32
    assert not given or actual is out
    torch.testing.assert_close(actual, expected, rtol=0.02 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


class Quantized(torch.Tensor):
    """A class of its own, as weights have that torchao quantizes."""


@pytest.mark.parametrize("given", [False, True], ids=["new memory", "given memory"])
@pytest.mark.parametrize(
    ("head", "rounds"), [(torch.Tensor, False), (Quantized, True)], ids=["plain", "quantized"]
)
def test_a_gpu_does_not_round_logits_to_16_bits_where_the_weights_are_plain(monkeypatch, head, rounds, given):
    """`meta` stands for the GPU."""
    weight = torch.empty(9, 4, dtype=torch.bfloat16, device="meta").as_subclass(head)
    states = torch.empty(2, 4, dtype=torch.bfloat16, device="meta")
    out = torch.empty(2, 8, device="meta") if given else None
    multiplied = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **k: multiplied.append(k["out_dtype"]) or mm(*a, **k))
    logits = project([(weight, states)], 8, torch.device("meta"), out)
    assert (logits.dtype, logits.shape) == (torch.float32, (2, 8))
    assert multiplied == ([] if rounds else [torch.float32])
