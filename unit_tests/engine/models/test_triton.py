"""Kernels of decoder layers against the layers of transformers, on the GPU or in Triton's interpreter."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

from types import SimpleNamespace

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from langchain_eft.engine.models import layer_ops

pytestmark = pytest.mark.cuda
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture(params=["kernel", "definition"])
def ops(request):
    names = ("rms_norm", "add_rms_norm", "angles", "rotate", "silu_mul")
    return SimpleNamespace(**{name: getattr(getattr(layer_ops, name), request.param) for name in names})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("hidden", [24, 300])
def test_norms(ops, dtype, tolerance, hidden):
    torch.manual_seed(0)
    norm = LlamaRMSNorm(hidden, 1e-5).to(DEVICE, dtype)
    norm.weight.data.normal_()
    x, residual = (torch.randn(5, 2 * hidden, device=DEVICE).to(dtype)[:, :hidden] for _ in range(2))
    residual = residual.contiguous()
    close = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(ops.rms_norm(x, norm.weight, 1e-5), norm(x), **close)
    torch.testing.assert_close(ops.rms_norm(x, norm.weight, 1e-5, residual), residual + norm(x), **close)
    total, normed = ops.add_rms_norm(x, residual, norm.weight, 1e-5)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(normed, norm(x + residual), **close)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("dim", [16, 80])
def test_rotation(ops, norms, dim):
    torch.manual_seed(0)
    states, angles = torch.randn(3, 6 * dim, device=DEVICE), torch.randn(3, dim // 2, device=DEVICE)
    cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
    query, key, value = states.clone().view(3, 6, dim).split([3, 1, 2], 1)
    weights = {}
    if norms:
        query_norm, key_norm = (LlamaRMSNorm(dim, 1e-5).to(DEVICE) for _ in range(2))
        query_norm.weight.data.normal_()
        key_norm.weight.data.normal_()
        query, key = query_norm(query), key_norm(key)
        weights = {"query_weight": query_norm.weight, "key_weight": key_norm.weight, "eps": 1e-5}
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    ops.rotate(states, ops.angles(cos[None], sin[None]), heads=3, key_heads=1, **weights)
    torch.testing.assert_close(states.view(3, 6, dim), torch.cat([query, key, value], 1), **TOLERANCE)


def test_gated_unit(ops):
    gate_up = 3 * torch.randn(3, 2 * 1500, device=DEVICE)
    gate, up = gate_up.chunk(2, -1)
    torch.testing.assert_close(ops.silu_mul(gate_up), torch.nn.functional.silu(gate) * up, **TOLERANCE)


COMPILE = """
from langchain_eft.engine.models import triton as module

for kernel in (module._norm, module._rotate, module._silu_mul):
    compile_only(kernel)
for Driver.capability in (80, 90):
    x, weight = meta(5, 4096), meta(4096)
    module.rms_norm_kernel(x, weight, 1e-5)
    module.rms_norm_kernel(x, weight, 1e-5, x)
    module.add_rms_norm_kernel(x, x, weight, 1e-5)
    module.silu_mul_kernel(meta(5, 2 * 14336))
    states, cos, norm = meta(5, 48 * 128), meta(5, 128), meta(128)
    for norms in ({}, {"query_weight": norm, "key_weight": norm, "eps": 1e-5}):
        module.rotate_kernel(states, (cos, cos), heads=32, key_heads=8, **norms)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    assert len(compiled_for_gpus(COMPILE, str(tmp_path))) == 12
