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

from langchain_eft.engine.decoding.nucleus_triton import keep_nucleus_kernel, scaled
from langchain_eft.engine.decoding.race import BLOCK
from langchain_eft.engine.decoding.random import RESIDUAL, SAMPLE, TEST
from langchain_eft.engine.decoding.sampling import Draw, Sampling, outside_top_k
from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous

_BLOCK = 8 * BLOCK
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
        **dependent_launch(logits.device),
    )
    return out


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["terms", "index_stride", "index_term_stride", "weight_stride", "weight_term_stride"],
    do_not_specialize_on_alignment=["index", "weights"],
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
    dependent: tl.constexpr,
) -> None:
    """The sums of one row and block."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    # No kernel writes the vocabulary, so it is read before the wait.
    allowed = tl.load(vocabulary + at, mask=inside, other=0) != 0
    wait_for_previous(dependent)
    total = tl.zeros([block], tl.float32)
    for term in range(terms):
        weight = tl.load(weights + row * weight_stride + term * weight_term_stride)
        source = tl.load(index + row * index_stride + term * index_term_stride)
        read = at < tl.where(weight != 0, size, 0)
        total += weight * tl.load(logits + source * logits_stride + at, mask=read, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, tl.where(allowed, total, float("-inf")), mask=inside)


def draw_kernel(logits: Tensor, sampling: Sampling) -> Draw:
    """Must equal `sampling.draw`, in three launches, one more with min-p, eight more with top-p.

    Torch still selects for top-k.

    Args:
        logits: [R, V], contiguous.
        sampling: R rows.
    """
    if not sampling.filters.sampled:
        return Draw(logits.argmax(-1), None)
    probs, totals = _filtered(logits, sampling)
    return Draw(_winners(probs, None, totals, sampling.seeds, sampling.positions), probs)


def probabilities_kernel(logits: Tensor, sampling: Sampling) -> Tensor:
    """Must equal `sampling.probabilities`, in one launch less than `draw_kernel`."""
    return _filtered(logits, sampling)[0]


def _filtered(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """[R, V] float64 `sampling.probabilities`, and the total of each block that races, [R, n] float64."""
    filters = sampling.filters
    temperature = sampling.temperature
    greedy = sampling.greedy if filters.greedy else None
    if filters.top_k:
        dropped = outside_top_k(logits / temperature[:, None], sampling)
        logits = logits.masked_fill(dropped, float("-inf"))
    if filters.top_p:
        logits = keep_nucleus_kernel(logits, temperature, sampling.top_p, greedy)
    return _softmax(logits, temperature, sampling.min_p.log() if filters.min_p else None, greedy)


def _softmax(
    logits: Tensor, temperature: Tensor, floor: Tensor | None, greedy: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Must equal `sampling.probabilities` without top-k and top-p.

    Args:
        logits: [R, V], contiguous.
        temperature: [R] float32.
        floor: [R] float32 logarithm of min-p: the lowest logit that is kept, relative to the row's largest.
            None keeps all.
        greedy: [R] bool, rows whose best token has probability 1, or None.

    Returns:
        [R, V] float64 probabilities, and the total of each block that races, [R, n] float64.
    """
    rows, size = logits.shape
    blocks = triton.cdiv(size, _BLOCK)

    def summary(all_peaks: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        peaks = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
        best, sums = torch.empty_like(peaks, dtype=torch.int32), torch.empty_like(peaks, dtype=torch.float64)
        _summarize[rows, blocks](
            logits,
            temperature,
            floor,
            all_peaks,
            peaks,
            best,
            sums,
            blocks,
            size,
            _BLOCK,
            _width(blocks),
            **dependent_launch(logits.device),
        )
        return peaks, best, sums

    peaks, best, sums = summary(None)
    if floor is not None:
        peaks, best, sums = summary(peaks)
    probs = torch.empty(rows, size, dtype=torch.float64, device=logits.device)
    totals = _empty_totals(probs)
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
        totals.shape[1],
        blocks,
        size,
        _BLOCK,
        BLOCK,
        _width(blocks),
        **dependent_launch(logits.device),
    )
    return probs, totals


def _empty_totals(probs: Tensor) -> Tensor:
    """Memory for the total of each block that races: [R, n] float64 for [R, V] probabilities."""
    return probs.new_empty(probs.shape[0], triton.cdiv(probs.shape[1], BLOCK))


def _width(blocks: int) -> int:
    """The power of two that holds a number of blocks: Triton needs one for the size of a range."""
    return int(triton.next_power_of_2(blocks))


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
    dependent: tl.constexpr,
) -> None:
    """Largest logit of one row and block, its token, and the sum of exponentials relative to it.

    `all_peaks` holds the largest logit of every block; with it, logits below the floor are left out.
    """
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    x = scaled(logits, temperature, row, at, size)
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
    num_totals: tl.constexpr,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    racing: tl.constexpr,
    width: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """Probabilities of one row and block, and the totals of its blocks that race."""
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    others = tl.arange(0, width)
    real = others < blocks
    tops = tl.load(peaks + row * blocks + others, mask=real, other=float("-inf"))
    peak = tl.max(tops, 0)
    top = peak.to(tl.float64)
    shares = tl.load(sums + row * blocks + others, mask=real, other=0.0)
    total = tl.sum(shares * tl.exp(tops.to(tl.float64) - top), 0)
    x = scaled(logits, temperature, row, at, size)
    if floor is not None:
        x = tl.where(x < peak + tl.load(floor + row), float("-inf"), x)
    p = tl.exp(x.to(tl.float64) - top) / total
    if greedy is not None:
        tokens = tl.load(best + row * blocks + others, mask=real, other=size)
        first = tl.min(tl.where(tops == peak, tokens, size), 0)
        p = tl.where(tl.load(greedy + row) != 0, (at == first).to(tl.float64), p)
    tl.store(probs + row * size + at, p, mask=at < size)
    _store_totals(totals, p, row, part, num_totals, block, racing)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _store_totals(
    totals: tl.tensor,
    weights: tl.tensor,
    row: tl.tensor,
    part: tl.tensor,
    num_totals: tl.constexpr,
    block: tl.constexpr,
    racing: tl.constexpr,
) -> None:
    """Store the totals of the blocks of `racing` tokens in one program's `block` tokens."""
    count: tl.constexpr = block // racing
    at = part * count + tl.arange(0, count)
    sums = tl.sum(tl.reshape(weights, [count, racing]), 1)
    tl.store(totals + row * num_totals + at, sums, mask=at < num_totals)


def accept_or_resample_kernel(
    p: Tensor, q: Tensor, samples: Tensor, seeds: Tensor, positions: Tensor
) -> Tensor:
    """Must equal `acceptance.accept_or_resample`, in two launches.

    Args:
        p: [R, V] float64, contiguous.
        q: [R, V] float64, contiguous.
        samples: [R] int64 samples of q.
        seeds: [R] int64.
        positions: [R] int64.

    Returns:
        [R] int64 samples of p.
    """
    (rows, size), totals = p.shape, _empty_totals(p)
    _total[rows, triton.cdiv(size, _BLOCK)](
        p,
        q,
        totals,
        totals.shape[1],
        size,
        _BLOCK,
        BLOCK,
        **dependent_launch(p.device),
    )
    return _winners(p, q, totals, seeds, positions, samples)


def _winners(
    p: Tensor,
    q: Tensor | None,
    totals: Tensor,
    seeds: Tensor,
    positions: Tensor,
    samples: Tensor | None = None,
) -> Tensor:
    """Must equal `race.race` of p, or with q, `acceptance.accept_or_resample`.

    Args:
        p: [R, V] float64, contiguous.
        q: [R, V] float64, contiguous, or None.
        totals: Total of p, or of `max(p - q, 0)`, of each block that races, [R, n] float64.
        seeds: [R] int64.
        positions: [R] int64.
        samples: [R] int64 samples of q, or None.

    Returns:
        [R] int64 tokens.
    """
    (rows, size), num_totals = p.shape, totals.shape[1]
    out = torch.empty(rows, dtype=torch.int64, device=p.device)
    _race[rows,](
        p,
        q,
        totals,
        seeds,
        positions,
        samples,
        out,
        seeds.stride(0),
        positions.stride(0),
        num_totals,
        size,
        BLOCK,
        _width(num_totals),
        SAMPLE if q is None else RESIDUAL,
        TEST,
        **dependent_launch(p.device),
    )
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
    totals: tl.tensor,
    num_totals: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    racing: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """The totals of one row and program."""
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    weights = _excess(p, q, row, part * block + tl.arange(0, block), size)
    _store_totals(totals, weights, row, part, num_totals, block, racing)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _fraction(high: tl.tensor, low: tl.tensor) -> tl.tensor:
    """float64 in [0, 1) from the bits of two 32-bit words."""
    bits = (high >> 5).to(tl.int64) * 67108864 + (low >> 6)
    return bits.to(tl.float64) * 1.1102230246251565e-16


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _uniforms(
    seed: tl.tensor, position: tl.tensor, purpose: tl.constexpr, width: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """`random.uniforms` of one row, bit for bit, by Triton's Philox4x32-10."""
    index = tl.arange(0, width).to(tl.uint32)
    low = (position & 0xFFFFFFFF).to(tl.uint32) + index * 0
    high = (position >> 32).to(tl.uint32) + index * 0
    a, b, c, d = tl.philox(seed, low, high, index * 0 + purpose, index)
    return _fraction(a, b), _fraction(c, d)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _first(rates: tl.tensor, u: tl.tensor, width: tl.constexpr) -> tl.tensor:
    """Which of `width` arrives first; it is a valid index even if no rate is positive."""
    times = tl.where(rates > 0, -tl.log(1.0 - u) / rates, float("inf"))
    at = tl.arange(0, width)
    return tl.min(tl.where(times == tl.min(times, 0), at, width - 1), 0)


@triton.jit(do_not_specialize=["seed_stride", "position_stride"])  # type: ignore[untyped-decorator, unused-ignore]
def _race(
    p: tl.tensor,
    q: tl.tensor,
    totals: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    samples: tl.tensor,
    out: tl.tensor,
    seed_stride: tl.tensor,
    position_stride: tl.tensor,
    num_totals: tl.constexpr,
    size: tl.constexpr,
    racing: tl.constexpr,
    width: tl.constexpr,
    purpose: tl.constexpr,
    test: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """The token of one row: first the race of the blocks, then that of the tokens in the winner."""
    wait_for_previous(dependent)
    row = tl.program_id(0).to(tl.int64)
    seed, position = tl.load(seeds + row * seed_stride), tl.load(positions + row * position_stride)
    parts = tl.arange(0, width)
    of_parts = tl.load(totals + row * num_totals + parts, mask=parts < num_totals, other=0.0)
    u, _ = _uniforms(seed, position, purpose, width)
    part = _first(of_parts, u, width)
    _, u = _uniforms(seed, position, purpose, racing)
    weights = _excess(p, q, row, part * racing + tl.arange(0, racing), size)
    token = (part * racing + _first(weights, u, racing)).to(tl.int64)
    if samples is not None:
        sample = tl.load(samples + row)
        p_sample, q_sample = tl.load(p + row * size + sample), tl.load(q + row * size + sample)
        tests, _ = _uniforms(seed, position, test, 1)
        # Where p and q are almost equal, rounding may refuse a sample and leave no residual to draw from.
        kept = (tl.max(tests, 0) * q_sample < p_sample) | (tl.sum(of_parts, 0) == 0)
        token = tl.where(kept, sample, token)
    tl.store(out + row, token)
