"""Linear layers that all variants share, and reading LoRA adapters."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.models.linear import StackedLinear, VariantRouter, product
from langchain_eft.engine.models.lora import LoraUpdate


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 200])
@pytest.mark.parametrize("bias", [True, False])
def test_product_is_a_linear_layer(rows, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 40, bias=bias), torch.randn(rows, 24)
    torch.testing.assert_close(product(x, layer.weight, layer.bias), layer(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_row_sees_only_its_own_adapter(dtype):
    torch.manual_seed(0)
    layer, router = torch.nn.Linear(12, 20, dtype=dtype), VariantRouter()

    def update(rank):
        return LoraUpdate(torch.randn(rank, 12, dtype=dtype), torch.randn(20, rank, dtype=dtype))

    updates = [update(3), None, update(5)]
    stacked = StackedLinear(layer, updates, router, Arena())
    x = torch.randn(1, 8, 12, dtype=dtype)
    for variants in ([0, 1, 2, 3, 3, 0, 1, 2], [0] * 8, [2] * 8, [3, 0] * 4, [1] * 8):
        router.route(torch.tensor(variants), sorted(set(variants)))
        expected = torch.stack([layer(row) for row in x[0]])
        for i, variant in enumerate(variants):
            update = updates[variant - 1] if variant else None
            if update:
                expected[i] += update.up @ (update.down @ x[0, i])
        torch.testing.assert_close(stacked(x)[0], expected)


@pytest.fixture
def adapter(family, tmp_path):
    """A function that writes a copy of an adapter with another configuration."""

    def change(**config):
        source = family.folder / "one"
        settings = json.loads((source / "adapter_config.json").read_text()) | config
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        weights = load_file(source / "adapter_model.safetensors")
        save_file(weights, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return change
