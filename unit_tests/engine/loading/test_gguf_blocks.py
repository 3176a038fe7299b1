"""The blocks of GGUF files, against the definition in the package `gguf`."""

import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.products import Product
from langchain_eft.engine.kernels.target import Target, host
from langchain_eft.engine.loading.gguf_blocks import BLOCKS, pack_blocks
from unit_tests.engine.kernels.blocks import random_blocks
from unit_tests.helpers import full

OUTPUTS, INPUTS = 100, 512
EVERYDAY = (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K)

each_kind = pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)


def product(x, parts, target=None):
    return Product(parts, target)(x)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def numbers(rows, kind):
    return torch.from_numpy(dequantize(rows.numpy(), kind))


@each_kind
def test_packed_blocks_hold_the_numbers_of_the_file(kind):
    rows = random_blocks(kind, OUTPUTS, INPUTS)
    packed = pack_blocks(rows, kind, Arena())
    assert torch.equal(packed.rows(torch.arange(OUTPUTS)), numbers(rows, kind))
    assert torch.equal(packed.rows(torch.tensor([99, 3, 99])), numbers(rows, kind)[[99, 3, 99]])


@each_kind
def test_products_equal_those_of_the_numbers_in_float64(kind):
    rows, x = random_blocks(kind, OUTPUTS, INPUTS), torch.randn(13, INPUTS)
    weight = numbers(rows, kind)
    expected = x.double() @ weight.double().T
    y = product(x, [pack_blocks(rows, kind, Arena())])
    by_blas = (x @ weight.T).double() - expected
    assert y.shape == (13, OUTPUTS)
    assert (y - expected).abs().max() < 2 * by_blas.abs().max()


@each_kind
def test_bits_do_not_depend_on_company(kind):
    weight, x = [pack_blocks(random_blocks(kind, OUTPUTS, INPUTS), kind, Arena())], torch.randn(33, INPUTS)
    alone = torch.cat([product(row[None], weight) for row in x])
    for count in (2, 3, 7, 33):
        for first in {0, 33 - count}:
            assert torch.equal(product(x[first : first + count], weight), alone[first : first + count])


@pytest.mark.slow  # each kernel is compiled once more
@pytest.mark.parametrize(
    "kind", [*EVERYDAY, *full(*(kind for kind in BLOCKS if kind not in EVERYDAY))], ids=lambda kind: kind.name
)
@pytest.mark.skipif("avx2" not in host().features, reason="no x86 processor with AVX2")
def test_bits_do_not_depend_on_the_width_of_registers(kind):
    weight, x = [pack_blocks(random_blocks(kind, OUTPUTS, INPUTS), kind, Arena())], torch.randn(33, INPUTS)
    for count in (1, 3, 33):
        narrow = product(x[:count], weight, Target("x86-64-v3", "-avx512f"))
        assert torch.equal(narrow, product(x[:count], weight))


def test_parts_of_any_size_and_kind_are_one_weight():
    x, arena, sizes = torch.randn(5, INPUTS), Arena(), (32, 1, 70, 3, 64, 5, 31, 33)
    weight = [
        pack_blocks(random_blocks(kind, size, INPUTS), kind, arena)
        for kind, size in zip(BLOCKS, sizes, strict=True)
    ]
    assert torch.equal(product(x, weight), torch.cat([product(x, [part]) for part in weight], 1))


@each_kind
def test_a_factor_that_is_no_number_is_refused(kind):
    rows = random_blocks(kind, OUTPUTS, INPUTS)
    first = GGML_QUANT_SIZES[kind][1] - 2 if kind.name == "Q6_K" else 0
    rows[7, first : first + 2] = torch.tensor([0, 0x7E], dtype=torch.uint8)
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack_blocks(rows, kind, Arena())
