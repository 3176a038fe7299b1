"""Fused decoder layers against the layers that they replace, on the GPU or in Triton's interpreter."""

from unit_tests.interpreter import DEVICE  # isort: skip

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from langchain_eft.engine import device_kernels
from langchain_eft.engine.models.fusion import fuse
from langchain_eft.engine.models.linear import VariantRouter, stack_adapters
from langchain_eft.engine.models.lora import LoraAdapter, LoraUpdate
from langchain_eft.engine.models.self_check import plain_logits

pytestmark = pytest.mark.cuda
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 5, "head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "smollm3": {"no_rope_layers": [1, 0]},
    "olmo2": {},
}
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}
TARGETS = {
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "some": ["v_proj", "gate_proj"],
}


def build(family, seed=0, **kwargs):
    """A tiny model with random weights."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family](
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **FAMILIES.get(family, {}),
        **kwargs,
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(DEVICE)


def size(module):
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def adapter(model, targets, rank):
    names = {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in targets}
    return LoraAdapter(
        "random",
        {
            name: LoraUpdate(
                0.3 * torch.randn(rank, layer.in_features, device=DEVICE),
                0.3 * torch.randn(layer.out_features, rank, device=DEVICE),
            )
            for name, layer in names.items()
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernels", [True, False])
def test_fused_layers_equal_the_layers_of_transformers(family, kernels, monkeypatch):
    """Without adapters, and with adapters of different ranks on different layers in mixed rows."""
    monkeypatch.setattr(device_kernels, "has_kernel", lambda device: kernels)
    model, unfused = build(family), build(family)
    ids = torch.randint(0, 61, (1, 9), device=DEVICE)
    expected, bytes_before = plain_logits(model, ids), size(model)
    adapters = [adapter(model, TARGETS["all"], 3), adapter(model, TARGETS["some"], 2)]
    assert fuse(model)
    assert size(model) == bytes_before
    assert not any(
        name.endswith(("q_proj", "up_proj")) and "gate_up" not in name for name, _ in model.named_modules()
    )
    torch.testing.assert_close(plain_logits(model, ids), expected, **TOLERANCE)
    routers = VariantRouter(), VariantRouter()
    for module, router in zip((model, unfused), routers, strict=True):
        stack_adapters(module, adapters, router)
    for variants in ([0, 1, 2, 1, 0, 2, 2, 1, 0], [2] * 9):
        for router in routers:
            router.route(torch.tensor(variants, device=DEVICE), sorted(set(variants)))
        logits, expected = (plain_logits(module, ids) for module in (model, unfused))
        torch.testing.assert_close(logits, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("family", "config"), [("llama", {"hidden_act": "gelu"}), ("gemma2", {"head_dim": 8}), ("gpt_neox", {})]
)
def test_other_layers_are_left_as_they_are(family, config):
    model = build(family, **config)
    layers = {name: type(module) for name, module in model.named_modules()}
    assert not fuse(model)
    assert {name: type(module) for name, module in model.named_modules()} == layers


def test_layers_with_hooks_are_left_as_they_are():
    """accelerate and transformers add hooks to layers that they spread over devices or ranks."""
    model = build("llama")
    model.model.layers[1].mlp.up_proj.register_forward_pre_hook(lambda module, args: None)
    assert not fuse(model)
