"""The kernels from logits to tokens against torch: on a GPU, or in Triton's interpreter on a CPU."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

from dataclasses import replace

import pytest
import torch

from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula import combine
from langchain_eft.engine.decoding.sampling import Sampling, draw
from langchain_eft.engine.decoding.triton import (
    _BLOCK,
    accept_or_resample_kernel,
    combine_kernel,
    draw_kernel,
)
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import full, slow

pytestmark = pytest.mark.cuda
SIZES = [61, *slow(_BLOCK + 37), *full(_BLOCK, 2 * _BLOCK + 37)]
MINUS_INFINITY = float("-inf")
KINDS = {
    "plain": [{}, {"temperature": 0.7}, {"temperature": 1.9}],
    "greedy": [{}, {"temperature": 0}, {"temperature": 0.6}, {"temperature": 0}],
    "min-p": [{"min_p": 0.3}, {}, {"temperature": 1.4, "min_p": 0.02}, {"temperature": 0}, {"min_p": 1.0}],
    "top-p": [{"top_p": 0.4}, {"temperature": 0.7, "top_p": 0.9}, {}, {"temperature": 0, "top_p": 0.5}],
    "all": [{"top_k": 5}, {"top_p": 0.4}, {"temperature": 0}, {"top_k": 9, "top_p": 0.9, "min_p": 0.1}],
}


def random_logits(rows, size, scale=3.0):
    """Some tokens are impossible. In the first row, a whole block is."""
    logits = scale * torch.randn(rows, size)
    logits[torch.rand(rows, size) < 0.2] = MINUS_INFINITY
    if size > _BLOCK:
        logits[0, :_BLOCK] = MINUS_INFINITY
    return logits.to(DEVICE)


def random_probs(rows, size):
    return random_logits(rows, size).double().softmax(-1)


def sampling(params):
    rows = [SamplingParams(**p, seed=31 + i) for i, p in enumerate(params)]
    return Sampling.of(rows, [i + 1 for i in range(len(rows))], torch.device(DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "terms"), [(61, 1), (_BLOCK, 2), (2 * _BLOCK + 37, 5)])
def test_combination(size, terms, dtype):
    torch.manual_seed(terms)
    padded = torch.randn(7, size + 3, device=DEVICE).to(dtype)
    padded[2, 5] = MINUS_INFINITY
    logits = padded[:, :size]
    index = torch.randint(0, 7, (terms, 4), device=DEVICE).t()
    weights = torch.rand(terms, 4, device=DEVICE).add(0.1).t()
    vocabulary = torch.rand(size, device=DEVICE) < 0.9
    actual = combine_kernel(logits, index, weights, vocabulary)
    expected = combine.definition(logits, index, weights, vocabulary)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_logits_with_weight_zero_are_not_read():
    logits = torch.stack([torch.randn(61), torch.full((61,), torch.nan)]).to(DEVICE)
    index, weights = (torch.tensor([[0, 1]], device=DEVICE), torch.tensor([[1.0, 0.0]], device=DEVICE))
    actual = combine_kernel(logits, index, weights, torch.ones(61, dtype=torch.bool, device=DEVICE))
    torch.testing.assert_close(actual, logits[:1], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
def test_draws(params, size):
    torch.manual_seed(size)
    rows = sampling(params)
    logits = random_logits(len(params), size)
    actual, expected = draw_kernel(logits, rows), draw.definition(logits, rows)
    assert actual.tokens.tolist() == expected.tokens.tolist()
    assert torch.equal(actual.probs == 0, expected.probs == 0)
    torch.testing.assert_close(actual.probs, expected.probs, rtol=1e-12, atol=0)


def test_greedy_rows_take_the_first_of_equally_probable_tokens():
    """Also if all rows are greedy, and if one token has probability 1."""
    for params in ([{"temperature": 0}] * 3, [{"temperature": 0}, {"temperature": 0}, {}]):
        logits = torch.full((3, 2 * _BLOCK + 37), -1.0, device=DEVICE)
        logits[0, [70, _BLOCK + 3]] = 2.0
        logits[1, [_BLOCK + 9, 2 * _BLOCK + 36]] = 2.0
        logits[2] = MINUS_INFINITY
        logits[2, 2 * _BLOCK + 36] = 0.0
        actual = draw_kernel(logits, sampling(params))
        assert actual.tokens.tolist() == [70, _BLOCK + 9, 2 * _BLOCK + 36]
        if actual.probs is not None:
            assert actual.probs.max(-1).values.tolist() == [1.0] * 3
            assert actual.probs.sum(-1).tolist() == [1.0] * 3


@pytest.mark.slow
def test_any_seed_and_position():
    generator = torch.Generator().manual_seed(0)
    seeds, positions = (torch.randint(0, 2**63 - 1, (40,), generator=generator) for _ in range(2))
    seeds[:4], positions[1:5] = torch.tensor([0, 1, 2**32 - 1, 2**63 - 1]), torch.arange(4)
    rows = replace(sampling([{}] * 20), seeds=seeds.to(DEVICE)[::2], positions=positions.to(DEVICE)[::2])
    logits = torch.zeros(20, _BLOCK + 37, device=DEVICE)
    tokens = draw_kernel(logits, rows).tokens
    assert tokens.tolist() == draw.definition(logits, rows).tokens.tolist()
    assert len(tokens.unique()) > 15


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_acceptance_and_resampling(size):
    torch.manual_seed(size)
    p = random_probs(9, size)
    q = (p.log() + 2 * torch.randn_like(p)).softmax(-1)
    samples = torch.multinomial(q, 1)[:, 0]
    p[5:7], q[5:7], samples[5], samples[6] = 0, 0, 3, size - 1  # greedy rows, wrong and right
    p[[5, 6], size - 1], q[5, 3], q[6, size - 1] = 1, 1, 1
    q[7] = p[7]  # nothing is left to draw from
    samples[7] = int(p[7].argmax())
    q[8], samples[8] = 0, 2  # p never draws what q always does
    q[8, 2] = 1
    p[8, 2] = 0
    seeds, kept = torch.arange(9, device=DEVICE) + 40, set()
    for position in range(3):
        positions = torch.full_like(seeds, position)
        actual = accept_or_resample_kernel(p, q, samples, seeds, positions)
        assert actual.tolist() == accept_or_resample.definition(p, q, samples, seeds, positions).tolist()
        assert bool((p.gather(1, actual[:, None]) > 0).all())
        assert actual[5:8].tolist() == [size - 1, size - 1, int(samples[7])]
        kept |= set((actual == samples)[:5].tolist())
    assert kept == {True, False}


@pytest.mark.slow
def test_a_sample_is_kept_where_p_nowhere_exceeds_q():
    """Rounding can refuse such a sample, and there is no residual to draw from."""
    q = torch.full((20, 61), 1 / 61, dtype=torch.float64, device=DEVICE)
    p = q * 0.5
    samples, seeds = torch.arange(20, device=DEVICE), torch.arange(20, device=DEVICE)
    assert accept_or_resample_kernel(p, q, samples, seeds, seeds).tolist() == samples.tolist()


@pytest.mark.parametrize("params", [KINDS["greedy"], KINDS["min-p"][:4]], ids=["greedy", "min-p"])
def test_padding_rows_get_valid_tokens_from_any_values(params):
    logits = random_logits(4, 61)
    logits[0], logits[1], logits[2, ::2], logits[3] = torch.nan, torch.nan, torch.nan, MINUS_INFINITY
    rows = sampling(params)
    actual = draw_kernel(logits, rows)
    tokens = accept_or_resample_kernel(actual.probs, actual.probs, actual.tokens, rows.seeds, rows.positions)
    for drawn in (actual.tokens, tokens):
        assert bool(((drawn >= 0) & (drawn < 61)).all())


COMPILE = """
from langchain_eft.engine.decoding import nucleus_triton, triton as module
from langchain_eft.engine.decoding.sampling import Filters, Sampling

for kernel in (module._combine, module._summarize, module._normalize, module._total, module._race):
    compile_only(kernel)
for kernel in (nucleus_triton._peak, nucleus_triton._narrow, nucleus_triton._cut):
    compile_only(kernel)
plain, everything = Filters(True, True, 0, False, False), Filters(False, True, 8, True, True)
for Driver.capability, size, kinds in ((80, 49152, [plain]), (90, 151936, [plain, everything])):
    real, whole = meta(8, dtype=torch.float32), meta(8, dtype=torch.int64)
    flags, logits = meta(8, dtype=torch.bool), meta(24, size, dtype=torch.float32)
    index, weights = meta(3, 8, dtype=torch.int64).t(), meta(3, 8, dtype=torch.float32).t()
    p = module.combine_kernel(logits, index, weights, meta(size, dtype=torch.bool))
    for filters in kinds:
        sampling = Sampling(whole, whole, flags, real, whole, real, real, filters)
        drawn = module.draw_kernel(p, sampling)
    module.accept_or_resample_kernel(drawn.probs, drawn.probs, drawn.tokens, whole, whole)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    assert len(compiled_for_gpus(COMPILE, str(tmp_path))) == 24
