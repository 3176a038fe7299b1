"""Products with packed weights, against torch in float64 and against themselves."""

import pytest
import torch
from torch.testing import assert_close

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import BFLOAT16, FLOAT16, FLOAT32, INT8, NUMBER_FORMATS
from langchain_eft.engine.kernels.products import Product
from langchain_eft.engine.kernels.target import Target, host
from unit_tests.helpers import full

AVX2 = Target("x86-64-v3", "-avx512f")

each_format = pytest.mark.parametrize("one", NUMBER_FORMATS, ids=lambda one: one.name)
on_x86 = pytest.mark.skipif("avx2" not in host().features, reason="no x86 processor with AVX2")


def product(x, parts, target=None):
    return Product(parts, target)(x)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def packed(one, outputs=192, inputs=224):
    return one.pack(torch.randn(outputs, inputs), Arena())


@each_format
@pytest.mark.parametrize(("outputs", "inputs"), [(192, 224), (33, 40), (1, 7), (100, 1)])
def test_products_equal_those_of_the_numbers_in_float64(one, outputs, inputs):
    weight, x = packed(one, outputs, inputs), torch.randn(13, inputs)
    expected = x.double() @ weight.rows(torch.arange(outputs)).double().T
    y = product(x, [weight])
    assert y.shape == (13, outputs)
    assert_close(y.double(), expected, rtol=0, atol=1e-6 * inputs**0.5 * float(expected.abs().max()))


@each_format
def test_a_row_is_the_same_in_any_company_and_at_every_place(one):
    weight, x = packed(one), torch.randn(33, 224)
    alone = torch.cat([product(row[None], [weight]) for row in x])
    for count in range(2, 34):
        for first in range(34 - count):
            assert torch.equal(product(x[first : first + count], [weight]), alone[first : first + count])


@pytest.mark.slow  # each kernel is compiled once more
@on_x86
@pytest.mark.parametrize("one", [BFLOAT16, INT8, *full(FLOAT32, FLOAT16)], ids=lambda one: one.name)
def test_bits_are_those_of_a_processor_without_avx512(one):
    weight, x = packed(one), torch.randn(33, 224)
    for count in (1, 2, 7, 33):
        assert torch.equal(product(x[:count], [weight], AVX2), product(x[:count], [weight]))


def test_rows_may_lie_apart_in_memory():
    weight, x = packed(BFLOAT16), torch.randn(5, 500)
    assert torch.equal(product(x[:, 3:227], [weight]), product(x[:, 3:227].contiguous(), [weight]))
    columns = torch.randn(224, 5).t()
    assert torch.equal(product(columns, [weight]), product(columns.contiguous(), [weight]))


def test_no_rows():
    assert product(torch.randn(0, 224), [packed(FLOAT16)]).shape == (0, 192)


@each_format
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_bits_do_not_depend_on_the_number_of_threads(one, threads):
    weight, x = packed(one, outputs=2080), torch.randn(5, 224)
    alone = product(x, [weight])
    torch.set_num_threads(threads)
    try:
        for _ in range(20):
            assert torch.equal(product(x, [weight]), alone)
    finally:
        torch.set_num_threads(1)
