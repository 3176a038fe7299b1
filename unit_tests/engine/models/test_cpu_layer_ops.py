"""Kernels of decoder layers for CPUs against their definitions in torch, in float64."""

import pytest
import torch

from langchain_eft.engine.kernels.store import kernel
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.models import cpu_layer_ops, layer_ops
from langchain_eft.engine.models.cpu_layer_ops import _Kernels

ROWS = 5
TOLERANCE = {"atol": 2e-6, "rtol": 2e-6}


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def norms(size, rows):
    """All three forms of a norm, of rows that lie apart."""
    x, residual, weight = drawn(ROWS, 2 * size)[rows, :size], drawn(ROWS, size)[rows], drawn(size)
    return [
        ("rms_norm", (x, weight, 1e-5)),
        ("rms_norm", (x, weight, 1e-5, residual)),
        ("add_rms_norm", (x, residual, weight, 1e-5)),
    ]


def computed(module, prefix, calls, dtype=torch.float32):
    """The tensors that functions of a module return."""
    found = []
    for name, arguments in calls:
        converted = [each.to(dtype) if isinstance(each, torch.Tensor) else each for each in arguments]
        result = getattr(module, prefix + name)(*converted)
        found += result if isinstance(result, tuple) else [result]
    return found


def rotated(module, prefix, dim, rows, *, normed, dtype=torch.float32):
    states, angles = drawn(ROWS, 6 * dim)[rows].to(dtype), drawn(ROWS, dim // 2)[rows].to(dtype)
    weights = {"query_weight": drawn(dim).to(dtype), "key_weight": drawn(dim + 2)[2:].to(dtype), "eps": 1e-5}
    cos, sin = (torch.cat([function(angles)] * 2, -1)[None] for function in (torch.cos, torch.sin))
    factors = getattr(module, prefix + "angles")(cos, sin)
    getattr(module, prefix + "rotate")(states, factors, heads=3, key_heads=1, **(weights if normed else {}))
    return states


def every_result(module, prefix, rows=slice(None), **settings):
    """What all operations return for sizes that fit kernels, and for sizes that do not."""
    found = [
        tensor for size in (24, 48, 576) for tensor in computed(module, prefix, norms(size, rows), **settings)
    ]
    for size in (24, 1536):
        found += computed(module, prefix, [("silu_mul", (3 * drawn(ROWS, 2 * size)[rows],))], **settings)
    for dim in (16, 32, 64, 128):
        for normed in (False, True):
            found.append(rotated(module, prefix, dim, rows, normed=normed, **settings))
    return found


def test_kernels_equal_their_definitions():
    expected = every_result(layer_ops, "", dtype=torch.float64)
    for tensor, exact in zip(every_result(cpu_layer_ops, "cpu_"), expected, strict=True):
        torch.testing.assert_close(tensor.double(), exact, **TOLERANCE)


def test_a_row_gets_the_same_bits_alone():
    together = every_result(cpu_layer_ops, "cpu_")
    for row in range(ROWS):
        alone = every_result(cpu_layer_ops, "cpu_", slice(row, row + 1))
        assert all(map(torch.equal, alone, (each[row : row + 1] for each in together)))


@pytest.mark.parametrize("cpu", ["x86-64-v3"])
def test_narrower_registers_give_the_same_bits(monkeypatch, cpu):
    wide = every_result(cpu_layer_ops, "cpu_")
    room, target = "langchain_eft.engine.kernels.layer", Target(cpu)
    narrow = _Kernels(
        *(kernel(room, name, n, target=target) for name, n in (("norm", 10), ("rotate", 11), ("silu_mul", 4)))
    )
    monkeypatch.setattr(cpu_layer_ops, "compiled", lambda: narrow)
    assert all(map(torch.equal, every_result(cpu_layer_ops, "cpu_"), wide))
