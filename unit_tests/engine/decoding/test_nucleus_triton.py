"""The search for the nucleus against the torch function: on a GPU, or in Triton's interpreter on a CPU."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_eft.engine.decoding.nucleus import nucleus
from langchain_eft.engine.decoding.nucleus_triton import _BLOCK, keep_nucleus_kernel
from unit_tests.helpers import full

pytestmark = pytest.mark.cuda
MINUS_INFINITY = float("-inf")


def searched(logits, top_p, temperature=None, greedy=None):
    temperature = torch.ones(len(logits)) if temperature is None else temperature
    tensors = [None if x is None else x.to(DEVICE) for x in (logits, temperature, top_p, greedy)]
    return keep_nucleus_kernel(*tensors).cpu()


def expected(logits, top_p, temperature=None):
    scaled = logits if temperature is None else logits / temperature[:, None]
    return torch.where(nucleus(scaled, top_p), logits, MINUS_INFINITY)


SIZES = [61, 3, _BLOCK, _BLOCK + 37, 2 * _BLOCK + 37]
SCALES = [3.0, 0.001, 25.0]
CASES = [(61, 3.0), (3, 25.0), (_BLOCK, 3.0), (_BLOCK + 37, 0.001)]
OTHERS = [each for each in product(SIZES, SCALES) if each not in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *full(*OTHERS)])
def test_the_nucleus_is_that_of_the_sort(case):
    size, scale = case
    torch.manual_seed(size)
    logits = scale * torch.randn(4, size)
    logits[torch.rand(4, size) < 0.2] = MINUS_INFINITY
    logits[:, size // 2] = 0.5
    temperature, top_p = torch.tensor([1.0, 0.7, 1.3, 1.0]), torch.tensor([0.9, 0.5, 0.999, 0.05])
    actual = searched(logits, top_p, temperature)
    assert torch.equal(actual, expected(logits, top_p, temperature))
    if DEVICE == "cuda":
        assert torch.equal(actual, searched(logits, top_p, temperature)), "the result depends on timing"


@pytest.mark.slow
@pytest.mark.parametrize("size", [_BLOCK + 37, *full(61, 2 * _BLOCK + 37)])
def test_equal_tokens_are_kept_together(size):
    """Also across blocks. bfloat16 logits are like this."""
    torch.manual_seed(size)
    logits = torch.stack([torch.zeros(size), (2 * torch.randn(size)).bfloat16().float(), torch.zeros(size)])
    logits[2, size - 2 :] = 3.0
    top_p = torch.tensor([0.75, 0.9, 0.75])
    actual = searched(logits, top_p)
    assert torch.equal(actual, expected(logits, top_p))
    assert (actual[0] == 0).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=5)
@given(
    st.lists(
        st.sampled_from([MINUS_INFINITY, 0.0, -0.0, 1e-9, 2.0**-27, 2.0**-26, -1e4])
        | st.floats(-50, 50, width=32),
        min_size=2,
        max_size=30,
    ).filter(lambda values: max(values) > MINUS_INFINITY),
    st.floats(0.0625, 1, width=32),
    st.floats(0.0625, 1, width=32),
)
def test_any_logits(values, first, second):
    logits = torch.tensor([values, values[::-1]])
    top_p = torch.tensor([first, second])
    assert torch.equal(searched(logits, top_p), expected(logits, top_p))


def test_rows_that_keep_all_tokens_and_greedy_rows_are_left_as_they_are():
    logits = torch.randn(3, 61)
    logits[0, 5] = MINUS_INFINITY
    top_p, greedy = torch.tensor([1.0, 0.5, 0.5]), torch.tensor([False, True, False])
    actual = searched(logits, top_p, greedy=greedy)
    assert torch.equal(actual[:2], logits[:2])
    assert torch.equal(actual[2:], expected(logits[2:], top_p[2:]))


@pytest.mark.slow
def test_a_row_that_is_not_finite_disturbs_no_other():
    logits = torch.randn(5, 61)
    logits[0], logits[1, 3], logits[2, 3], logits[3] = torch.nan, torch.nan, torch.inf, MINUS_INFINITY
    top_p = torch.full([5], 0.8)
    assert torch.equal(searched(logits, top_p)[4:], expected(logits[4:], top_p[4:]))


COMPILE = """
from langchain_eft.engine.decoding import nucleus_triton as module

for kernel in (module._peak, module._narrow, module._cut):
    compile_only(kernel)
for Driver.capability, size, greedy in ((80, 49152, None), (90, 151936, meta(3, dtype=torch.bool))):
    logits, numbers = meta(3, size, dtype=torch.float32), meta(3, dtype=torch.float32)
    module.keep_nucleus_kernel(logits, numbers, numbers, greedy)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    shared = compiled_for_gpus(COMPILE, str(tmp_path))
    assert len(shared) == 2 * 8
    assert max(shared) <= 99 * 1024
