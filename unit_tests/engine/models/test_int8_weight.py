"""Weights in 8 bits: the error is that of their own rounding, whatever the activations are."""

import pytest
import torch

from langchain_eft.engine.models.int8_weight import Int8Weight, has_int8_products

pytestmark = pytest.mark.skipif(not has_int8_products(), reason="torch has no FBGEMM for the processor")


@pytest.fixture(params=[True, False], ids=["as it is", "without VNNI"])
def processor(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)


def rounded(weight):
    steps = weight.abs().amax(1, keepdim=True) / 127
    return (weight / steps).round() * steps


@pytest.mark.parametrize("outlier", [1.0, 100.0])
@pytest.mark.parametrize("shape", [(40, 24), (576, 1536)])
def test_only_the_weight_is_rounded(processor, shape, outlier):
    torch.manual_seed(0)
    weight, x = torch.randn(shape), torch.randn(7, shape[1])
    x[:, 3] *= outlier
    x[4] = 0
    product, expected = Int8Weight.pack(weight).product(x), x @ rounded(weight).t()
    others = x.clone()
    others[:, 3] = 0
    usual = (others @ weight.t()).std()
    assert (product - expected).std() < 0.004 * usual
    assert not product[4].any()
    assert Int8Weight.pack(weight.bfloat16()).nbytes == weight.numel()


def test_large_sums_do_not_overflow(processor):
    """Processors without VNNI add pairs of products in 16 bits."""
    ones = torch.ones(64, 576)
    torch.testing.assert_close(Int8Weight.pack(ones).product(ones[:3]), torch.full((3, 64), 576.0))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_product_in_any_batch(processor, threads):
    torch.manual_seed(0)
    weight, x = Int8Weight.pack(torch.randn(192, 576)), torch.randn(70, 576) * torch.rand(70, 1) * 50
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = weight.product(x)
        for rows in (1, 2, 3, 5, 16, 33):
            assert torch.equal(weight.product(x[:rows]), together[:rows])
        assert weight.product(x[:0]).shape == (0, 192)
    finally:
        torch.set_num_threads(before)
