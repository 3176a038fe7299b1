"""Weights in half precision: nothing is lost, and a row gets the same product in any batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from langchain_eft.engine.models.half_weight import HalfWeight, half_weight
from langchain_eft.engine.models.packed_weight import has_fbgemm
from unit_tests.helpers import values

pytestmark = pytest.mark.skipif(
    not has_fbgemm(), reason="this build of torch has no FBGEMM for the processor"
)

DTYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("scale", [1e-12, 0.02, 1.0, 1e4])
@pytest.mark.parametrize("stored", [*DTYPES, torch.float32])
def test_a_product_equals_the_float32_product(stored, scale):
    torch.manual_seed(0)
    weight = (torch.randn(192, 576) * scale).to(torch.bfloat16 if scale < 1e-4 else torch.float16).to(stored)
    half, x, bias = half_weight(weight), torch.randn(3, 5, 576), torch.randn(192)
    assert torch.equal(values(half), weight.float())
    assert half.nbytes == 2 * weight.numel()
    for added in (None, bias):
        expected = functional.linear(x, weight.float(), added)
        tolerance = 1e-5 * float(expected.std())
        torch.testing.assert_close(functional.linear(x, half, added), expected, atol=tolerance, rtol=1e-5)


@given(
    bits=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=30), dtype=st.sampled_from(DTYPES)
)
def test_any_16_bit_number_survives_as_far_as_a_sum_in_float32_can_tell(bits, dtype):
    weight = torch.tensor([bits], dtype=torch.int16).view(dtype)
    half = half_weight(weight)
    if not weight.isfinite().all():
        assert half is None
        return
    weight = weight.float()
    error = (values(half) - weight).abs().max()
    assert error <= 2**-32 * weight.abs().max() or error <= 2.0**-100  # far below the smallest product


@pytest.mark.parametrize("value", [0.1, float("nan"), float("inf"), 1 + 2**-20])
def test_a_weight_with_more_digits_is_refused_wherever_they_are(value):
    weight = torch.ones(300, 300)
    weight[299, 299] = value
    assert half_weight(weight) is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(24, 40), (576, 192), (1536, 576)])
def test_a_row_has_the_same_product_in_any_batch(shape, threads):
    torch.manual_seed(0)
    half, x = half_weight(torch.randn(shape[1], shape[0]).bfloat16()), torch.randn(100, shape[0])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = half.product(x)
        for rows in (1, 2, 3, 4, 5, 7, 16, 33, 64):
            assert torch.equal(half.product(x[:rows]), together[:rows])
            assert torch.equal(half.product(x[-rows:]), together[-rows:])
        assert half.product(x[:0]).shape == (0, shape[1])
    finally:
        torch.set_num_threads(before)


def test_nothing_else_can_be_done_with_it():
    half = half_weight(torch.ones(3, 4))
    assert isinstance(half, HalfWeight)
    assert (half.shape, half.dtype, half.device.type) == ((3, 4), torch.float32, "cpu")
    assert repr(half) == "HalfWeight(shape=(3, 4))"
    for read in (lambda: half + 1, lambda: half[0], half.clone, lambda: torch.ones(4) @ half.t()):
        with pytest.raises(TypeError, match="HalfWeight"):
            read()
