"""`nucleus.nucleus` as Triton kernels: a search for the last token that is kept, without a sort.

Tokens are ordered by their distance from the row's largest logit. The bits of a float32 that is not negative
order it like an integer, so a token's key is those bits. The search is a radix selection. It knows a range of
keys that holds the last kept token, divides it into 32 bins, adds up the weights of the tokens in every bin,
and goes on with the bin in which the sum reaches what is wanted. After six times the range is a single key.

The programs of a row exchange the sums of their bins from launch to launch, in a fixed order, so the result
does not depend on timing.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.decoding.nucleus import LARGEST_TIE
from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous

_BLOCK = 4096
"""Tokens of the vocabulary that one program reads."""

_BINS = 32

_SHIFTS = (23, 18, 13, 8, 4, 0)
"""Bits of a key below those that a launch tells apart."""

_STATE = 4
"""Numbers of a row's state: three, and a fourth so that addresses stay aligned."""

_KEY_BITS = 28
"""Bits of the keys of distances up to 32. A nucleus ends far before it: exp(-32) is 1e-14."""


def keep_nucleus_kernel(logits: Tensor, temperature: Tensor, top_p: Tensor, greedy: Tensor | None) -> Tensor:
    """The logits of the nucleus of `logits / temperature`, and -inf for all other tokens, in eight launches.

    Rows that keep all tokens cost almost nothing.

    Args:
        logits: [R, V] float32, contiguous.
        temperature: [R] float32.
        top_p: [R] float32 in (0, 1].
        greedy: [R] bool, rows whose nucleus does not matter, or None.

    Returns:
        [R, V] float32.
    """
    (rows, size), device = logits.shape, logits.device
    blocks = triton.cdiv(size, _BLOCK)
    grid, width = (rows, blocks), int(triton.next_power_of_2(blocks))
    peaks = torch.empty(rows, blocks, dtype=torch.float32, device=device)
    sums = torch.empty(len(_SHIFTS), rows, blocks, _BINS, dtype=torch.float64, device=device)
    # Of each row: the first key of the range, the weight of the tokens before it, and the weight wanted.
    states = torch.empty(len(_SHIFTS), rows, _STATE, dtype=torch.float64, device=device)
    out = torch.empty_like(logits)
    _peak[grid](
        logits,
        temperature,
        top_p,
        greedy,
        peaks,
        blocks,
        size,
        _BLOCK,
        **dependent_launch(logits.device),
    )
    shared = (logits, temperature, top_p, greedy, peaks)
    constants = {
        "blocks": blocks,
        "size": size,
        "block": _BLOCK,
        "bins": _BINS,
        "width": width,
        "state_size": _STATE,
        "smallest": LARGEST_TIE,
    }
    for level, shift in enumerate(_SHIFTS):
        above = _SHIFTS[level - 1] if level else _KEY_BITS
        _narrow[grid](
            *shared,
            sums[level - 1] if level else None,
            states[level - 1] if level else None,
            sums[level],
            states[level],
            above,
            shift,
            **constants,
            **dependent_launch(logits.device),
        )
    _cut[grid](
        *shared,
        sums[-1],
        states[-1],
        out,
        **constants,
        **dependent_launch(logits.device),
    )
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def scaled(
    logits: tl.tensor, temperature: tl.tensor, row: tl.tensor, at: tl.tensor, size: tl.constexpr
) -> tl.tensor:
    """Logits at temperature, in float32 and rounded as torch does, so that filters keep the same tokens."""
    x = tl.load(logits + row * size + at, mask=at < size, other=float("-inf")).to(tl.float32)
    return tl.div_rn(x, tl.load(temperature + row))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _keeps_all(top_p: tl.tensor, greedy: tl.tensor, row: tl.tensor) -> tl.tensor:
    """Whether a row needs no search."""
    keeps = tl.load(top_p + row) >= 1
    if greedy is not None:
        keeps = keeps | (tl.load(greedy + row) != 0)
    return keeps


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _peak(
    logits: tl.tensor,
    temperature: tl.tensor,
    top_p: tl.tensor,
    greedy: tl.tensor,
    peaks: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """Largest logit of one row and block."""
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if _keeps_all(top_p, greedy, row):
        return
    x = scaled(logits, temperature, row, part * block + tl.arange(0, block), size)
    tl.store(peaks + row * blocks + part, tl.max(x, 0))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _keys_and_weights(
    logits: tl.tensor,
    temperature: tl.tensor,
    peaks: tl.tensor,
    row: tl.tensor,
    at: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    width: tl.constexpr,
    smallest: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Keys of tokens, smaller for larger logits, and their weights relative to the best token."""
    others = tl.arange(0, width)
    tops = tl.load(peaks + row * blocks + others, mask=others < blocks, other=float("-inf"))
    distance = tl.max(tops, 0) - scaled(logits, temperature, row, at, size)
    distance = tl.where(distance >= 0, distance, float("inf"))  # NaN
    least = tl.full([1], smallest, tl.float32)
    largest = tl.full([1], 31.999998, tl.float32)  # the last float32 before 32
    bounded = tl.minimum(tl.maximum(distance, least), largest)
    return bounded.to(tl.int32, bitcast=True) - least.to(tl.int32, bitcast=True), tl.exp(-distance)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _chosen(
    top_p: tl.tensor,
    sums: tl.tensor,
    states: tl.tensor,
    row: tl.tensor,
    shift: tl.tensor,
    blocks: tl.constexpr,
    bins: tl.constexpr,
    width: tl.constexpr,
    state_size: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The bin of the last launch that holds the last kept token.

    Returns:
        Its first key, the weight of all tokens before it, and the weight that is wanted.
    """
    number, others = tl.arange(0, bins), tl.arange(0, width)
    of_parts = tl.load(
        sums + (row * blocks + others)[:, None] * bins + number[None, :],
        mask=(others < blocks)[:, None],
        other=0.0,
    )
    totals = tl.sum(of_parts, 0)
    state = states + row * state_size
    first, before, wanted = tl.load(state).to(tl.int32), tl.load(state + 1), tl.load(state + 2)
    # The first launch adds up all tokens.
    wanted = tl.where(wanted < 0, tl.load(top_p + row).to(tl.float64) * tl.sum(totals, 0), wanted)
    complete = tl.sum((before + tl.cumsum(totals, 0) < wanted).to(tl.int32), 0)
    # Sums of other bins round in another way, and then none may reach what is wanted.
    chosen = tl.minimum(complete, tl.max(tl.where(totals > 0, number, 0), 0))
    before += tl.sum(tl.where(number < chosen, totals, 0.0), 0)
    return first + (chosen << shift), before, wanted


@triton.jit(do_not_specialize=["above", "shift"])  # type: ignore[untyped-decorator, unused-ignore]
def _narrow(
    logits: tl.tensor,
    temperature: tl.tensor,
    top_p: tl.tensor,
    greedy: tl.tensor,
    peaks: tl.tensor,
    last_sums: tl.tensor,
    last_states: tl.tensor,
    sums: tl.tensor,
    states: tl.tensor,
    above: tl.tensor,
    shift: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    bins: tl.constexpr,
    width: tl.constexpr,
    state_size: tl.constexpr,
    smallest: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """Choose a bin of the last launch, divide it into bins, and add up their weights in one row and block.

    `above` is the number of bits of a key within the chosen bin, and `shift` within the new ones.
    """
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if _keeps_all(top_p, greedy, row):
        return
    key, before, wanted = (
        tl.full([], 0, tl.int32),
        tl.full([], 0.0, tl.float64),
        tl.full([], -1.0, tl.float64),
    )
    if last_sums is not None:
        key, before, wanted = _chosen(
            top_p, last_sums, last_states, row, above, blocks, bins, width, state_size
        )
    if part == 0:
        state = states + row * state_size
        tl.store(state, key.to(tl.float64))
        tl.store(state + 1, before)
        tl.store(state + 2, wanted)
    at = part * block + tl.arange(0, block)
    of_tokens, weight = _keys_and_weights(logits, temperature, peaks, row, at, blocks, size, width, smallest)
    inside = (of_tokens >= key) & (of_tokens - key < (1 << above))
    bin_of = tl.where(inside, (of_tokens - key) >> shift, -1)
    number = tl.arange(0, bins)
    found = tl.zeros([bins], tl.float64)
    if tl.max(bin_of, 0) >= 0:
        for each in range(bins):
            total = tl.sum(tl.where(bin_of == each, weight.to(tl.float64), 0.0), 0)
            found = tl.where(number == each, total, found)
    tl.store(sums + (row * blocks + part) * bins + number, found)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _cut(
    logits: tl.tensor,
    temperature: tl.tensor,
    top_p: tl.tensor,
    greedy: tl.tensor,
    peaks: tl.tensor,
    sums: tl.tensor,
    states: tl.tensor,
    out: tl.tensor,
    blocks: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    bins: tl.constexpr,
    width: tl.constexpr,
    state_size: tl.constexpr,
    smallest: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """Keep the nucleus of one row and block: all tokens at least as probable as the last one needed."""
    wait_for_previous(dependent)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * block + tl.arange(0, block)
    x = tl.load(logits + row * size + at, mask=at < size, other=0.0)
    if _keeps_all(top_p, greedy, row):
        tl.store(out + row * size + at, x, mask=at < size)
        return
    key, _, _ = _chosen(top_p, sums, states, row, 0, blocks, bins, width, state_size)
    of_tokens, _ = _keys_and_weights(logits, temperature, peaks, row, at, blocks, size, width, smallest)
    tl.store(out + row * size + at, tl.where(of_tokens <= key, x, float("-inf")), mask=at < size)
