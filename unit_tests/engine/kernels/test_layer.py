"""Kernels of decoder layers for CPUs against their definitions in torch, in float64."""

from functools import partial

import pytest
import torch

from langchain_eft.engine.kernels import layer
from langchain_eft.engine.kernels.program import Extent, Program
from langchain_eft.engine.kernels.store import kernel
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.models import layer_ops

ROWS = 5
TOLERANCE = {"atol": 2e-6, "rtol": 2e-6}
SIZES = (1, 24, 48, 576)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def run(add, *arguments, rows, **settings):
    """Run a program with one step."""
    program = Program()
    add(program, *arguments, Extent(rows), **settings)
    program.run()


def norms(size, rows):
    """All forms of a norm, of rows that lie apart, and their exact results."""
    x, other, weight = drawn(ROWS, 2 * size)[rows, :size], drawn(ROWS, size + 3)[rows, :size], drawn(size)
    plain = layer_ops.rms_norm(x.double(), weight.double(), 1e-5)
    total, normed = layer_ops.add_rms_norm(x.double(), other.double(), weight.double(), 1e-5)
    out, of_sum, sums, in_place, after = (each.clone() for each in (x, x, other, x, other))
    add = partial(run, layer.add_norm, rows=len(x))
    add(x, weight, 1e-5, out)
    add(in_place, weight, 1e-5, in_place)
    add(x, weight, 1e-5, after, after=after)
    add(x, weight, 1e-5, of_sum, total=sums)
    return [(out, plain), (in_place, plain), (after, plain + other), (of_sum, normed), (sums, total)]


def rotated(dim, rows, *, normed):
    """Three heads of queries and one of keys are rotated; what lies behind them stays."""
    states, angles = drawn(ROWS, 6 * dim)[rows], drawn(ROWS, dim // 2)[rows]
    exact, settings = states.double(), {"heads": 3, "key_heads": 1, "eps": 1e-5}
    weights = {"query_weight": drawn(dim), "key_weight": drawn(dim + 2)[2:]} if normed else {}
    cos, sin = (torch.cat([function(angles)] * 2, -1)[None] for function in (torch.cos, torch.sin))
    doubles = {name: weight.double() for name, weight in weights.items()}
    layer_ops.rotate(exact, layer_ops.angles(cos.double(), sin.double()), **settings, **doubles)
    factors = (factor[:, 0].contiguous() for factor in layer_ops.angles(cos, sin))
    run(layer.add_rotation, states, *factors, rows=len(states), **settings, **weights)
    return states, exact


def gated(size, rows):
    x = 3 * drawn(ROWS, 2 * size)[rows]
    out = torch.empty(len(x), size)
    run(layer.add_silu_mul, x, out, rows=len(x))
    return out, layer_ops.silu_mul(x.double())


def every_result(rows=slice(None)):
    """What all operations give, and their exact results."""
    found = [pair for size in SIZES for pair in norms(size, rows)]
    found += [gated(size, rows) for size in SIZES]
    return found + [
        rotated(dim, rows, normed=normed) for dim in (2, 6, 16, 80, 128) for normed in (True, False)
    ]


def test_kernels_equal_their_definitions():
    for result, exact in every_result():
        torch.testing.assert_close(result.double(), exact, **TOLERANCE)


def test_a_row_gets_the_same_bits_alone():
    together = [result for result, _ in every_result()]
    for row in range(ROWS):
        alone = [result for result, _ in every_result(slice(row, row + 1))]
        assert all(map(torch.equal, alone, (each[row : row + 1] for each in together)))


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["x86-64-v3"])
def test_narrower_registers_give_the_same_bits(monkeypatch, cpu):
    wide = [result for result, _ in every_result()]
    monkeypatch.setattr(layer, "kernel", partial(kernel, target=Target(cpu)))
    assert all(map(torch.equal, (result for result, _ in every_result()), wide))


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_taken_and_added_by_their_numbers(size):
    x, index = drawn(ROWS, size), torch.tensor([4, 0, 3])
    taken = torch.empty(3, size)
    program, extent, out = Program(), Extent(3), drawn(ROWS, size).clone()
    expected = out.clone()
    expected[index] += x[index]
    expected += x[0]
    layer.add_take(program, x, index, taken, extent)
    layer.add_sum(program, taken, out, extent, index)
    layer.add_sum(program, x[0], out, Extent(ROWS))
    program.run()
    assert torch.equal(taken, x[index])
    assert torch.equal(out, expected)
