"""From logits to tokens in a few Triton kernels: the formula, the filters, the draw and the acceptance rule.

Each public function must equal the torch function that its docstring names, up to the rounding of sums. A
row's vocabulary is divided into blocks, so that a few rows keep a whole GPU busy. The programs of a row
exchange one number per block.

Nothing is read back to the host. A launch depends only on shapes and on the filters that some row needs.
Padding rows may hold any values, also NaN: their tokens are still valid token ids.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.decoding.acceptance import RESIDUAL, TEST
from langchain_eft.engine.decoding.sampling import Draw, Sampling, truncate

_BLOCK = 2048
"""Tokens of the vocabulary that one program reads."""


def combine_kernel(logits: Tensor, index: Tensor, weights: Tensor, vocabulary: Tensor) -> Tensor:
    """Must equal `formula.combine`, in one launch. Logits with weight 0 are not read.

    Args:
        logits: [N, V], the last axis contiguous.
        index: [R, T] int64, the rows of `logits` that each sum takes.
        weights: [R, T].
        vocabulary: [V] bool; the sums of other tokens are -inf.

    Returns:
        [R, V] float32.
    """
    (rows, terms), size = index.shape, logits.shape[1]
    out = torch.empty(rows, size, dtype=torch.float32, device=logits.device)
    _combine[rows, triton.cdiv(size, _BLOCK)](
        logits,
        index,
        weights,
        vocabulary,
        out,
        terms,
        logits.stride(0),
        *index.stride(),
        *weights.stride(),
        size=size,
        block=_BLOCK,
    )
    return out


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["terms", "index_stride", "index_term_stride", "weight_stride", "weight_term_stride"]
)
def _combine(
    logits: tl.tensor,
    index: tl.tensor,
    weights: tl.tensor,
    vocabulary: tl.tensor,
    out: tl.tensor,
    terms: tl.tensor,
    logits_stride: tl.tensor,
    index_stride: tl.tensor,
    index_term_stride: tl.tensor,
    weight_stride: tl.tensor,
    weight_term_stride: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The sums of one row and block."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    total = tl.zeros([block], tl.float32)
    for term in range(terms):
        weight = tl.load(weights + row * weight_stride + term * weight_term_stride)
        source = tl.load(index + row * index_stride + term * index_term_stride)
        read = at < tl.where(weight != 0, size, 0)
        total += weight * tl.load(logits + source * logits_stride + at, mask=read, other=0.0).to(tl.float32)
    allowed = tl.load(vocabulary + at, mask=inside, other=0) != 0
    tl.store(out + row * size + at, tl.where(allowed, total, float("-inf")), mask=inside)


def draw_kernel(logits: Tensor, sampling: Sampling) -> Draw:
    """Must equal `sampling.draw`, in four launches, five with min-p. Torch still sorts for top-k and top-p.

    Args:
        logits: [R, V], contiguous.
        sampling: R rows.
    """
    filters = sampling.filters
    if not filters.sampled:
        return Draw(logits.argmax(-1), None)
    temperature: Tensor | None = sampling.temperature
    if filters.top_k or filters.top_p:
        logits, temperature = truncate(logits / sampling.temperature[:, None], sampling), None
    probs, totals = _softmax(
        logits,
        temperature,
        sampling.min_p.log() if filters.min_p else None,
        sampling.greedy if filters.greedy else None,
    )
    (u,) = uniform_kernel(sampling.seeds, sampling.positions, range(1))
    return Draw(_pick(probs, None, totals, u), probs)


def _softmax(
    logits: Tensor, temperature: Tensor | None, floor: Tensor | None, greedy: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Must equal `sampling.probabilities` without top-k and top-p.

    Args:
        logits: [R, V], contiguous.
        temperature: [R] float32, or None for 1.
        floor: [R] float32 logarithm of min-p: the lowest logit that is kept, relative to the row's largest.
            None keeps all.
        greedy: [R] bool, rows whose best token has probability 1, or None.

    Returns:
        [R, V] float64 probabilities, and [R, blocks] float64, the total of each block.
    """
    rows, size = logits.shape
    blocks = triton.cdiv(size, _BLOCK)

    def summary(all_peaks: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        peaks = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
        best, sums = torch.empty_like(peaks, dtype=torch.int32), torch.empty_like(peaks, dtype=torch.float64)
        _summarize[rows, blocks](
            logits, temperature, floor, all_peaks, peaks, best, sums, blocks, size, _BLOCK, _width(blocks)
        )
        return peaks, best, sums

    peaks, best, sums = summary(None)
    if floor is not None:
        peaks, best, sums = summary(peaks)
    probs = torch.empty(rows, size, dtype=torch.float64, device=logits.device)
    totals = torch.empty_like(sums)
    _normalize[rows, blocks](
        logits,
        temperature,
        floor,
        greedy,
        peaks,
        best,
        sums,
        probs,
        totals,
        blocks,
        size,
        _BLOCK,
        _width(blocks),
    )
    return probs, totals


def _width(blocks: int) -> int:
    """The power of two that holds a number of blocks: Triton needs one for the size of a range."""
    return int(triton.next_power_of_2(blocks))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _scaled(
    logits: tl.tensor, temperature: tl.tensor, row: tl.tensor, at: tl.tensor, size: tl.constexpr
) -> tl.tensor:
    """Logits at temperature, in float32 and rounded as torch does, so that filters keep the same tokens."""
    x = tl.load(logits + row * size + at, mask=at < size, other=float("-inf")).to(tl.float32)
    if temperature is not None:
        x = tl.div_rn(x, tl.load(temperature + row))
    return x


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _summarize(
    logits: tl.tensor,
    temperature: tl.tensor,
    floor: tl.tensor,
    all_peaks: tl.tensor,
    peaks: tl.tensor,
    best: tl.tensor,
    sums: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Largest logit of one row and block, its token, and the sum of exponentials relative to it.

    `all_peaks` holds the largest logit of every block; with it, logits below the floor are left out.
    """
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    x = _scaled(logits, temperature, row, at, size)
    if all_peaks is not None:
        others = tl.arange(0, width)
        tops = tl.load(all_peaks + row * blocks + others, mask=others < blocks, other=float("-inf"))
        x = tl.where(x < tl.max(tops, 0) + tl.load(floor + row), float("-inf"), x)
    peak = tl.max(x, 0)
    # All logits of a block may be -inf, and -inf - -inf is NaN.
    base = tl.where(peak == float("-inf"), 0.0, peak)
    entry = row * blocks + part
    tl.store(peaks + entry, peak)
    tl.store(best + entry, tl.min(tl.where((x == peak) & (at < size), at, size), 0))
    tl.store(sums + entry, tl.sum(tl.exp(x.to(tl.float64) - base.to(tl.float64)), 0))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _normalize(
    logits: tl.tensor,
    temperature: tl.tensor,
    floor: tl.tensor,
    greedy: tl.tensor,
    peaks: tl.tensor,
    best: tl.tensor,
    sums: tl.tensor,
    probs: tl.tensor,
    totals: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Probabilities of one row and block, and their total."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    others = tl.arange(0, width)
    real = others < blocks
    tops = tl.load(peaks + row * blocks + others, mask=real, other=float("-inf"))
    peak = tl.max(tops, 0)
    top = peak.to(tl.float64)
    shares = tl.load(sums + row * blocks + others, mask=real, other=0.0)
    total = tl.sum(shares * tl.exp(tops.to(tl.float64) - top), 0)
    x = _scaled(logits, temperature, row, at, size)
    if floor is not None:
        x = tl.where(x < peak + tl.load(floor + row), float("-inf"), x)
    p = tl.exp(x.to(tl.float64) - top) / total
    if greedy is not None:
        tokens = tl.load(best + row * blocks + others, mask=real, other=size)
        first = tl.min(tl.where(tops == peak, tokens, size), 0)
        p = tl.where(tl.load(greedy + row) != 0, (at == first).to(tl.float64), p)
    tl.store(probs + row * size + at, p, mask=at < size)
    tl.store(totals + row * blocks + part, tl.sum(p, 0))


def accept_or_resample_kernel(
    p: Tensor, q: Tensor, samples: Tensor, seeds: Tensor, positions: Tensor
) -> Tensor:
    """Must equal `acceptance.accept_or_resample`, in three launches.

    Args:
        p: [R, V] float64, contiguous.
        q: [R, V] float64, contiguous.
        samples: [R] int64 samples of q.
        seeds: [R] int64.
        positions: [R] int64.

    Returns:
        [R] int64 samples of p.
    """
    test, u = uniform_kernel(seeds, positions, range(TEST, RESIDUAL + 1))
    return _pick(p, q, _totals(p, q), u, samples, test)


def uniform_kernel(seeds: Tensor, positions: Tensor, purposes: range) -> Tensor:
    """Must equal `random.uniform` bit for bit, for several purposes in one launch.

    Args:
        seeds: [R] int64, not negative.
        positions: [R] int64.
        purposes: P consecutive purposes.

    Returns:
        [P, R] float64 in [0, 1).
    """
    rows = len(seeds)
    out = torch.empty(len(purposes), rows, dtype=torch.float64, device=seeds.device)
    _uniform[rows,](
        seeds, positions, out, seeds.stride(0), positions.stride(0), rows, purposes.start, len(purposes)
    )
    return out


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["seed_stride", "position_stride", "rows"]
)
def _uniform(
    seeds: tl.tensor,
    positions: tl.tensor,
    out: tl.tensor,
    seed_stride: tl.tensor,
    position_stride: tl.tensor,
    rows: tl.tensor,
    first: tl.constexpr,
    count: tl.constexpr,
) -> None:
    """The numbers of one row: Triton's Philox4x32-10, keyed by the seed, over position and purpose."""
    row = tl.program_id(0).to(tl.int64)
    seed = tl.load(seeds + row * seed_stride)
    position = tl.load(positions + row * position_stride)
    low, high = (position & 0xFFFFFFFF).to(tl.uint32), (position >> 32).to(tl.uint32)
    for i in tl.static_range(count):
        a, b, _, _ = tl.philox(seed, low, high, first + i, 0)
        bits = (a >> 5).to(tl.int64) * 67108864 + (b >> 6).to(tl.int64)
        tl.store(out + i * rows + row, bits.to(tl.float64) * 1.1102230246251565e-16)


def _totals(p: Tensor, q: Tensor) -> Tensor:
    """[R, blocks] float64 total of `max(p - q, 0)` in each block."""
    rows, size = p.shape
    blocks = triton.cdiv(size, _BLOCK)
    out = torch.empty(rows, blocks, dtype=torch.float64, device=p.device)
    _total[rows, blocks](p, q, out, blocks, size, _BLOCK)
    return out


def _pick(
    p: Tensor,
    q: Tensor | None,
    totals: Tensor,
    u: Tensor,
    samples: Tensor | None = None,
    test: Tensor | None = None,
) -> Tensor:
    """Must equal `random.invert_cdf` of p, or with q, `acceptance.accept_or_resample`.

    Args:
        p: [R, V] float64, contiguous.
        q: [R, V] float64, contiguous, or None.
        totals: [R, blocks] float64 total of p, or of `max(p - q, 0)`, in each block.
        u: [R] float64 in [0, 1), the uniform numbers to draw with.
        samples: [R] int64 samples of q, or None.
        test: [R] float64 in [0, 1), the uniform numbers to accept the samples with, or None.

    Returns:
        [R] int64 tokens.
    """
    (rows, size), blocks = p.shape, totals.shape[1]
    out = torch.empty(rows, dtype=torch.int64, device=p.device)
    _cross[rows,](p, q, totals, u, samples, test, out, blocks, size, _BLOCK, _width(blocks))
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _excess(p: tl.tensor, q: tl.tensor, row: tl.tensor, at: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """p, or with q, `max(p - q, 0)`."""
    inside = at < size
    weights = tl.load(p + row * size + at, mask=inside, other=0.0)
    if q is not None:
        weights = tl.maximum(weights - tl.load(q + row * size + at, mask=inside, other=0.0), 0.0)
    return weights


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _total(
    p: tl.tensor,
    q: tl.tensor,
    out: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The total of one row and block."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    tl.store(out + row * blocks + part, tl.sum(_excess(p, q, row, at, size), 0))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _crossing(weights: tl.tensor, threshold: tl.tensor, width: tl.constexpr) -> tl.tensor:
    """Where the cumulative sum of weights passes a threshold; never at a weight of 0, despite rounding."""
    at = tl.arange(0, width)
    possible = weights > 0
    passed = possible & (tl.cumsum(weights, 0) > threshold)
    last = tl.max(tl.where(possible, at, 0), 0)
    return tl.minimum(tl.min(tl.where(passed, at, width), 0), last)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _cross(
    p: tl.tensor,
    q: tl.tensor,
    totals: tl.tensor,
    u: tl.tensor,
    samples: tl.tensor,
    test: tl.tensor,
    out: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """The token of one row: first find its block, then the token in the block."""
    row = tl.program_id(0).to(tl.int64)
    parts = tl.arange(0, width)
    of_blocks = tl.load(totals + row * blocks + parts, mask=parts < blocks, other=0.0)
    total = tl.sum(of_blocks, 0)
    threshold = tl.load(u + row) * total
    part = _crossing(of_blocks, threshold, width)
    before = tl.sum(tl.where(parts < part, of_blocks, 0.0), 0)
    weights = _excess(p, q, row, part * block + tl.arange(0, block), size)
    token = (part * block + _crossing(weights, threshold - before, block)).to(tl.int64)
    if samples is not None:
        sample = tl.load(samples + row)
        p_sample, q_sample = tl.load(p + row * size + sample), tl.load(q + row * size + sample)
        # Where p and q are almost equal, rounding may refuse a sample and leave no residual to draw from.
        kept = (tl.load(test + row) * q_sample < p_sample) | (total == 0)
        token = tl.where(kept, sample, token)
    tl.store(out + row, token)
