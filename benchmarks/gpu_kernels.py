"""The kernels at the shapes of real models, against their torch definitions, with their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any

import torch

from langchain_eft.engine.attention.gathered import attend_gathered
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula import combine
from langchain_eft.engine.decoding.sampling import Sampling, draw, probabilities
from langchain_eft.engine.request import SamplingParams

BLOCK_SIZE = 16
HEADS = {
    "8B": (32, 8, 128),
    "1B": (32, 8, 64),
    "14B": (40, 8, 128),
    "0.5B": (14, 2, 64),
    "13B": (40, 40, 128),
}
"""Query heads, key heads and their width."""
WORK = ((1, 1, 1000), (1, 5, 1000), (16, 5, 1000), (1, 5, 8000), (2, 256, 2000))
"""Rows, new tokens of each, and the length of their contexts."""
LONG_WORK = ((64, 1, 1000), (1, 1, 32000), (1, 2048, 8000))
SIZES = ((1, 128256), (5, 128256), (80, 128256), (80, 151936), (5, 50257))
"""Rows and words of the vocabulary."""
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_p": 0.9},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "min_p": 0.02},
)


def kernel_checks(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each check's name, and the work, which returns what was found.

    Args:
        device: A GPU, or a CPU in Triton's interpreter, with tiny shapes.
    """
    tiny = device.type == "cpu"
    shapes = {"tiny": (4, 2, 16)} if tiny else HEADS
    work = ((2, 3, 100), (3, 20, 80)) if tiny else WORK
    cases = [(name, *each) for name in shapes for each in work]
    cases += [] if tiny else [("8B", *each) for each in LONG_WORK]
    for name, rows, queries, context in cases:
        label = f"attention of {name}: {rows} rows, {queries} queries, context {context}"
        yield label, partial(_attention, device, shapes[name], rows, queries, context)
    for rows, vocabulary in ((2, 700),) if tiny else SIZES:
        for filters in FILTERS:
            label = f"drawing: {rows} rows, {vocabulary} words, {filters or 'no filters'}"
            yield label, partial(_drawing, device, rows, vocabulary, filters)


def _attention(
    device: torch.device, heads: tuple[int, int, int], rows: int, queries: int, context: int
) -> dict[str, Any]:
    """Rows of many queries have different numbers of them, and lie one after the other."""
    from langchain_eft.engine.attention.triton import paged_attention_kernel

    torch.manual_seed(rows + context)
    query_heads, key_heads, dim = heads
    blocks, bound = -(-context // BLOCK_SIZE), 1 << (max(1024, context) - 1).bit_length()
    counts = [max(1, queries - row % 3) if queries > 16 else queries for row in range(rows)]
    lengths = [max(count, context - 5 * row % 60) for row, count in enumerate(counts)]
    starts = list(accumulate(counts[:-1], initial=0)) if queries > 16 else None
    table = torch.zeros(rows, bound // BLOCK_SIZE, dtype=torch.int32, device=device)
    table[:, :blocks] = torch.randperm(rows * blocks, device=device).view(rows, blocks)

    def numbers(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    paged = PagedRows(
        block_table=table,
        starts=None if starts is None else numbers(starts),
        queries=numbers(counts),
        lengths=numbers(lengths),
        block_size=BLOCK_SIZE,
        max_queries=queries,
        max_length=bound,
    )
    states = torch.randn(sum(counts), query_heads + 2 * key_heads, dim, device=device).bfloat16()
    new = states.split([query_heads, key_heads, key_heads], 1)
    memory = torch.randn(rows * blocks * BLOCK_SIZE + 1, key_heads, 2 * dim, device=device).bfloat16()
    exact, expected = memory.float(), torch.zeros(sum(counts), query_heads, dim, device=device)
    out = torch.full_like(expected, torch.nan, dtype=torch.bfloat16)
    pools = memory.split(dim, -1)
    run = partial(paged_attention_kernel, *new, *pools, paged, out, scaling=dim**-0.5)
    run()
    attend_gathered(*(x.float() for x in new), exact, [paged], expected, scaling=dim**-0.5)
    error = float((out.float() - expected).norm() / expected.norm())
    stored = torch.equal(memory[:-1].float(), exact[:-1])
    took, size = microseconds(run, device), 4 * dim * key_heads * sum(lengths)
    speed = round(size / took / 1e6, 2) if took else None
    return {"right": error < 1e-2 and stored, "error": error, "stored": stored, "us": took, "TB/s": speed}


def _drawing(device: torch.device, rows: int, vocabulary: int, filters: dict[str, Any]) -> dict[str, Any]:
    """The formula, a draw and the acceptance of drafts. A near tie may draw another token once."""
    torch.manual_seed(rows)
    logits = 3 * torch.randn(3 * rows, vocabulary, device=device)
    index = torch.arange(3 * rows, device=device).view(3, rows).t()
    weights = torch.tensor([1.0, 1.0, -1.0], device=device).expand(rows, 3)
    known = torch.rand(vocabulary, device=device) < 0.99
    params = [SamplingParams(seed=seed, **filters) for seed in range(rows)]
    sampling = Sampling.of(params, list(range(1, rows + 1)), device)
    combined = combine.kernel(logits, index, weights, known)
    far = (combined - combine.definition(logits, index, weights, known))[:, known].abs().max()
    q = combine.definition(logits, index[:, 1:2], weights[:, :1], known)
    drawn, expected = draw.kernel(q, sampling), draw.definition(q, sampling)
    p = probabilities.definition(combined, sampling)
    assert drawn.probs is not None
    assert expected.probs is not None
    samples = p, expected.probs, expected.tokens, sampling.seeds, sampling.positions
    accepted = accept_or_resample.kernel(*samples) != accept_or_resample.definition(*samples)
    found = {
        "error of sums": float(far),
        "error of probabilities": float((drawn.probs - expected.probs).abs().max()),
        "other tokens drawn": int((drawn.tokens != expected.tokens).sum()),
        "other tokens accepted": int(accepted.sum()),
    }
    times = {
        "combine": lambda: combine.kernel(logits, index, weights, known),
        "draw": lambda: draw.kernel(q, sampling),
        "accept": lambda: accept_or_resample.kernel(*samples),
    }
    right = max(found["error of sums"], found["error of probabilities"]) < 1e-4
    right = right and found["other tokens drawn"] + found["other tokens accepted"] <= rows // 50
    return {"right": right} | found | {"us": {name: microseconds(run, device) for name, run in times.items()}}


def microseconds(run: Callable[[], Any], device: torch.device) -> float | None:
    """The median time of some work in a CUDA graph; None on a CPU."""
    if device.type != "cuda":
        return None
    from triton.testing import do_bench_cudagraph

    return round(1000 * do_bench_cudagraph(run, rep=20, return_mode="median"), 2)


def profile(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """The kernels of some work: time by name, and how long the GPU was busy, in milliseconds."""
    kind = (
        torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    )
    with torch.profiler.profile(activities=[kind]) as recorded:
        run()
    spans: list[tuple[float, float]] = []
    kernels: Counter[str] = Counter()
    for event in recorded.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
            kernels[event.name[:60]] += round(event.time_range.elapsed_us())
    busy = end = 0.0
    for start, stop in sorted(spans):
        busy, end = busy + max(0.0, stop - max(start, end)), max(end, stop)
    return {"launches": len(spans), "busy": busy / 1000, "us": dict(kernels.most_common(30))}
