"""Prepacked weights: a row gets the same product in any batch."""

import gc
import weakref

import pytest
import torch

from langchain_eft.engine.models.linear import product
from langchain_eft.engine.models.prepacked import prepack, prepackable

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
