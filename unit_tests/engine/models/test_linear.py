"""Linear layers that all variants share, prepacked weights, and reading LoRA adapters."""

import gc
import json
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError
from langchain_eft.engine.models.linear import StackedLinear, VariantRouter, product
from langchain_eft.engine.models.lora import LoraUpdate, load_adapter
from langchain_eft.engine.models.prepacked import prepack, prepackable


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 200])
@pytest.mark.parametrize("bias", [True, False])
def test_product_is_a_linear_layer(rows, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 40, bias=bias), torch.randn(rows, 24)
    torch.testing.assert_close(product(x, layer.weight, layer.bias), layer(x))


needs_onednn = pytest.mark.skipif(
    not prepackable(torch.zeros(1, 1)), reason="this build of torch has no oneDNN for the processor"
)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24, 40), (576, 192), (1536, 576)])
def test_a_prepacked_product_is_the_same_for_a_row_in_any_batch(shape, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(*shape, bias=bias), torch.randn(48, shape[0])
    weight = prepack(layer.weight)
    together = product(x, weight, layer.bias)
    torch.testing.assert_close(together, layer(x))
    for rows in (1, 2, 3, 4, 5, 7, 16, 33):
        assert torch.equal(product(x[:rows], weight, layer.bias), together[:rows])


@needs_onednn
def test_a_weight_is_packed_once_and_its_copy_is_freed_with_it():
    layer = torch.nn.Linear(8, 8)
    assert prepack(layer.weight) is prepack(layer.weight)
    packed = weakref.ref(prepack(layer.weight))
    del layer
    gc.collect()
    assert packed() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # float32 may be prepacked, float64 is not
def test_each_row_sees_only_its_own_adapter(dtype):
    torch.manual_seed(0)
    layer, router = torch.nn.Linear(12, 20, dtype=dtype), VariantRouter()

    def update(rank):
        return LoraUpdate(torch.randn(rank, 12, dtype=dtype), torch.randn(20, rank, dtype=dtype))

    updates = [update(3), None, update(5)]
    stacked = StackedLinear(layer, updates, router)
    x = torch.randn(1, 8, 12, dtype=dtype)
    for variants in ([0, 1, 2, 3, 3, 0, 1, 2], [0] * 8, [2] * 8, [3, 0] * 4, [1] * 8):
        router.route(torch.tensor(variants), sorted(set(variants)))
        expected = torch.stack([layer(row) for row in x[0]])
        for i, variant in enumerate(variants):
            update = updates[variant - 1] if variant else None
            if update:
                expected[i] += update.up @ (update.down @ x[0, i])
        torch.testing.assert_close(stacked(x)[0], expected)


def test_scale_is_alpha_over_rank_or_over_its_root(family):
    folder = family.folder / "one"
    plain = load_adapter(folder, torch.float32, torch.device("cpu"))
    raw = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    up = raw[f"base_model.model.{name}.lora_B.weight"]
    torch.testing.assert_close(plain.updates[name].up, 2 * up)


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


def test_rank_stabilized_scale(adapter, family):
    stable = load_adapter(adapter(use_rslora=True), torch.float32, torch.device("cpu"))
    plain = load_adapter(family.folder / "one", torch.float32, torch.device("cpu"))
    name = "model.layers.0.self_attn.q_proj"
    torch.testing.assert_close(stable.updates[name].up, plain.updates[name].up * 4**0.5)


@pytest.mark.parametrize(
    "config", [{"peft_type": "IA3"}, {"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}]
)
def test_adapters_that_are_not_plain_lora_are_refused_by_name(adapter, config):
    with pytest.raises(RecipeError, match=f"{next(iter(config))}=.*use `tuned=`"):
        load_adapter(adapter(**config), torch.float32, torch.device("cpu"))


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"adapter_config\.json.*save_pretrained"):
        load_adapter(tmp_path, torch.float32, torch.device("cpu"))
