"""Weights in packed formats."""

import pytest
import torch

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import BFLOAT16, FLOAT16, FLOAT32, INT8, lossless

ALL = torch.arange(50)


@pytest.mark.parametrize("one", [FLOAT32, FLOAT16, BFLOAT16], ids=lambda one: one.name)
def test_floating_point_formats_keep_the_numbers_of_their_type(one):
    weight = torch.randn(50, 40).to(one.dtype)
    packed = one.pack(weight, Arena())
    assert torch.equal(packed.rows(ALL), weight.float())
    assert torch.equal(packed.rows(torch.tensor([7, 49, 7])), weight[[7, 49, 7]].float())
    assert packed.nbytes == 50 * 40 * one.dtype.itemsize


def test_int8_rounds_to_a_256th_of_an_output_s_largest_number():
    weight = torch.randn(50, 40) * torch.logspace(-6, 6, 50)[:, None]
    weight[3] = 0
    rows = INT8.pack(weight, Arena()).rows(ALL)
    largest = weight.abs().amax(1, keepdim=True)
    assert ((rows - weight).abs() <= largest / 253).all()
    assert INT8.pack(weight, Arena()).nbytes == 50 * (40 + 4)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (torch.tensor([[1 / 3]], dtype=torch.float16), FLOAT16),
        (torch.tensor([[1 / 3]], dtype=torch.bfloat16), BFLOAT16),
        (torch.tensor([[1.5, 2.0**100]]), BFLOAT16),
        (torch.tensor([[1 + 2**-10]]), FLOAT16),
        (torch.tensor([[1 + 2**-10, 2.0**100]]), FLOAT32),
        (torch.tensor([[1 / 3]]), FLOAT32),
    ],
)
def test_the_smallest_format_without_a_loss(weight, expected):
    assert lossless(weight) is expected
