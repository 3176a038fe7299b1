"""The paged-attention kernel against SDPA: on a GPU, or in Triton's interpreter on a CPU."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus, run_triton_everywhere  # isort: skip

import pytest
import torch

from langchain_eft.engine import device_kernels
from langchain_eft.engine.attention import paged
from langchain_eft.engine.attention.sdpa import attend, causal_bias, padded_length
from langchain_eft.engine.attention.triton import (
    MAX_SPLITS,
    PagedRows,
    _attend,
    _merge,
    paged_attention_kernel,
    split_count,
    tile_sizes,
)
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, full, kind_of_rounds, request, slow, wait_until

pytestmark = pytest.mark.cuda
MANY_PROCESSORS = 64  # so many that small batches are split
FEATURES = {
    "plain": {},
    "window": {"sliding_window": 37},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": True},
    "all": {"sliding_window": 70, "softcap": 2.0, "sinks": True},
}


class Case:
    """A ragged batch over shuffled blocks.

    Slots outside all rows are NaN, and so are the slots of new tokens, which the kernel has to store: a
    result that reads one of them is NaN.
    """

    def __init__(
        self,
        counts,
        lengths,
        *,
        kv_heads=1,
        group=2,
        dim=16,
        value_dim=None,
        block_size=16,
        dtype=torch.float32,
        max_length=None,
        entries=None,
        sinks=False,
        seed=0,
        **features,
    ):
        torch.manual_seed(seed)
        heads, value_dim = kv_heads * group, value_dim or dim
        blocks = [-(-length // block_size) for length in lengths]
        ids = torch.randperm(sum(blocks) + 3)[: sum(blocks)].split(blocks)
        slots = (sum(blocks) + 3) * block_size
        self.counts, self.lengths = counts, lengths
        self.starts = [entries * row if entries else sum(counts[:row]) for row in range(len(counts))]
        tokens = len(counts) * entries if entries else sum(counts)
        self.query, self.new_keys, self.new_values = (
            torch.full((tokens, *shape), torch.nan, dtype=dtype)
            for shape in ((heads, dim), (kv_heads, dim), (kv_heads, value_dim))
        )
        self.keys = torch.full((slots, kv_heads, dim), torch.nan, dtype=dtype)
        self.values = torch.full((slots, kv_heads, value_dim), torch.nan, dtype=dtype)
        self.contexts = [
            (row[:, None] * block_size + torch.arange(block_size)).flatten()[:length]
            for row, length in zip(ids, lengths, strict=True)
        ]
        for context in self.contexts:
            self.keys[context] = torch.randn(len(context), kv_heads, dim).to(dtype)
            self.values[context] = torch.randn(len(context), kv_heads, value_dim).to(dtype)
        for start, count, context in self.rows_of_tokens():
            here, new = slice(start, start + count), context[len(context) - count :]
            self.query[here] = torch.randn(count, heads, dim).to(dtype)
            self.new_keys[here], self.new_values[here] = self.keys[new], self.values[new]
        table = torch.full((len(counts), max(blocks) + 1), 10**6, dtype=torch.int32)
        for row, blocks_of_row in zip(table, ids, strict=True):
            row[: len(blocks_of_row)] = blocks_of_row
        self.rows = PagedRows(
            block_table=table.to(DEVICE),
            starts=None if entries else int32(self.starts),
            queries=int32(counts),
            lengths=int32(lengths),
            block_size=block_size,
            max_queries=entries or max(counts),
            max_length=max_length or max(lengths),
        )
        self.sinks = torch.randn(heads).to(dtype) if sinks else None
        self.features = {"scaling": dim**-0.5, **features}

    def rows_of_tokens(self):
        """Start, count and context of every row with queries and a context."""
        rows = zip(self.starts, self.counts, self.contexts, strict=True)
        return [row for row in rows if row[1] and len(row[2])]

    def pools(self):
        """Key and value pools without the new tokens."""
        pools = self.keys.clone(), self.values.clone()
        for _, count, context in self.rows_of_tokens():
            for pool in pools:
                pool[context[len(context) - count :]] = torch.nan
        return [pool.to(DEVICE) for pool in pools]

    def kernel(self, query=None, processors=MANY_PROCESSORS):
        query = self.query if query is None else query
        out = query.new_zeros(*query.shape[:2], self.values.shape[-1]).to(DEVICE)
        keys, values = self.pools()
        paged_attention_kernel(
            query.to(DEVICE),
            self.new_keys.to(DEVICE),
            self.new_values.to(DEVICE),
            keys,
            values,
            self.rows,
            out,
            sinks=None if self.sinks is None else self.sinks.to(DEVICE),
            processors=processors,
            **self.features,
        )
        # Every new token was stored, and nothing else was touched.
        torch.testing.assert_close(keys.cpu(), self.keys, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(values.cpu(), self.values, rtol=0, atol=0, equal_nan=True)
        return out.cpu()

    def oracle(self):
        """[N, heads, value_dim] float32."""
        out = torch.zeros(*self.query.shape[:2], self.values.shape[-1])
        for start, count, context in self.rows_of_tokens():
            window = self.features.get("sliding_window")
            padded = torch.cat([context, context[:1].repeat(padded_length(len(context)) - len(context))])
            out[start : start + count] = attend(
                self.query[start : start + count].float().transpose(0, 1),
                self.keys[padded].float().transpose(0, 1),
                self.values[padded].float().transpose(0, 1),
                causal_bias(count, [len(context)], window, torch.device("cpu"))[0],
                self.features["scaling"],
                self.features.get("softcap"),
                None if self.sinks is None else self.sinks.float(),
            ).transpose(0, 1)
        return out


def int32(numbers):
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def assert_exact(out, expected):
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kv_heads", "group", "counts", "lengths"),
    [
        (2, 1, [1, 17, 1, 5], [1, 66, 130, 64]),
        (1, 3, [17, 1, 2], [17, 130, 65]),
        (2, 4, [3, 1, 4], [129, 66, 4]),
        (1, 8, [2, 5], [2, 140]),
    ],
)
@pytest.mark.parametrize("features", ["plain", "all", *full("window", "softcap", "sinks")])
def test_ragged_rows_equal_sdpa(kv_heads, group, counts, lengths, features):
    case = Case(counts, lengths, kv_heads=kv_heads, group=group, seed=group, **FEATURES[features])
    assert_exact(case.kernel(), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block_size", "dim", "value_dim"),
    [
        (4, 16, 64),
        (16, 80, 48),
        (256, 64, 64),
        *(
            pytest.param(*sizes, marks=pytest.mark.full)
            for sizes in [(4, 80, 80), (16, 64, 64), (256, 80, 80)]
        ),
    ],
)
def test_block_sizes_and_head_sizes(block_size, dim, value_dim):
    case = Case([2, 1, 4], [77, 300, 4], dim=dim, value_dim=value_dim, block_size=block_size, seed=dim)
    assert_exact(case.kernel(), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_batches(seed):
    draw = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(1, 5, (), generator=draw))
    counts = torch.randint(1, 18, (rows,), generator=draw).tolist()
    lengths = [n + int(torch.randint(0, 400, (), generator=draw)) for n in counts]
    window = int(torch.randint(1, 200, (), generator=draw))
    case = Case(counts, lengths, block_size=4, seed=seed, sliding_window=window)
    assert_exact(case.kernel(), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize("features", ["window", "softcap", "sinks"])
def test_each_feature_alone(features):
    case = Case([5, 17], [64, 66], group=3, **FEATURES[features])
    assert_exact(case.kernel(), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize("window", [64, *full(None, 65)])
def test_lengths_around_split_boundaries(window):
    lengths = [63, 64, 65, 127, 128, 129, 192]
    case = Case([2] * len(lengths), lengths, kv_heads=2, group=1, max_length=256, sliding_window=window)
    assert_exact(case.kernel(), case.oracle())


def test_results_do_not_depend_on_the_splits():
    case = Case([4, 1], [333, 200], **FEATURES["all"])
    whole = case.kernel(processors=1)
    for processors in (2, 1000):
        assert_exact(case.kernel(processors=processors), whole)


def test_default_processors():
    case = Case([1], [150])
    assert_exact(case.kernel(processors=None), case.oracle())


def test_verification_equals_decoding():
    """The queries of one row have the results that each has alone."""
    together = Case([4], [140])
    out = together.kernel()
    for j in range(4):
        alone = Case([1], [137 + j])
        alone.query = together.query[j : j + 1]
        alone.new_keys, alone.new_values = together.new_keys[j : j + 1], together.new_values[j : j + 1]
        alone.keys[alone.contexts[0]] = together.keys[together.contexts[0][: 137 + j]]
        alone.values[alone.contexts[0]] = together.values[together.contexts[0][: 137 + j]]
        assert_exact(alone.kernel()[0], out[j])


@pytest.mark.slow
@pytest.mark.parametrize(("features", "processors"), [("plain", 1), ("window", 1), ("all", MANY_PROCESSORS)])
def test_long_chunks(features, processors):
    """Chunks of a prompt: more queries than a tile holds, with or without tokens that were stored before."""
    case = Case([20, 24], [20, 75], group=3, block_size=4, **FEATURES[features])
    assert_exact(case.kernel(processors=processors), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("processors", [1, MANY_PROCESSORS])
def test_results_beyond_a_rows_queries_are_zero(features, processors):
    """The layout of padded rounds: every row has the same number of entries, some of them padding."""
    case = Case([3, 0, 1, 4], [70, 0, 200, 4], group=3, entries=4, max_length=512, **FEATURES[features])
    assert_exact(case.kernel(processors=processors), case.oracle())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance", "features"),
    [
        (torch.bfloat16, 2e-2, "all"),
        (torch.float16, 3e-3, "plain"),
        pytest.param(torch.bfloat16, 2e-2, "plain", marks=pytest.mark.full),
    ],
)
def test_half_precision(dtype, tolerance, features):
    # 17 queries of 8 heads are more pairs than the largest tile holds.
    case = Case([17, 1], [70, 90], group=8, dim=64, dtype=dtype, **FEATURES[features])
    out = case.kernel()
    assert out.dtype is dtype
    torch.testing.assert_close(out.float(), case.oracle(), atol=tolerance, rtol=tolerance)


def test_padding_rows_are_harmless():
    """Rows without queries, length or both. Results of their tokens, and of tokens of no row, are zero."""
    case = Case([3, 0, 2, 0, 1], [70, 40, 0, 0, 9], max_length=512, sinks=True, sliding_window=20)
    padded = torch.cat([case.query, torch.full((4, *case.query.shape[1:]), torch.nan)])
    out = case.kernel(padded)
    assert_exact(out[:6], case.oracle())
    assert not out[3:5].any()
    assert not out[6:].any()


def test_query_may_be_a_transposed_view():
    case = Case([3, 1], [20, 90])
    view = case.query.transpose(0, 1).contiguous().transpose(0, 1)
    assert not view.is_contiguous()
    assert_exact(case.kernel(view), case.oracle())


@pytest.mark.parametrize("programs", [1, 3, 8, 1000])
@pytest.mark.parametrize("max_length", [1, 64, 65, 8192, 131072])
@pytest.mark.parametrize("processors", [2, 132])
def test_contexts_are_split_while_processors_idle(programs, max_length, processors):
    splits = split_count(programs, max_length, 64, processors)
    assert 1 <= splits <= MAX_SPLITS
    assert (splits - 1) * 64 < max_length
    assert splits == 1 or programs < 2 * processors


@pytest.mark.slow
@pytest.mark.parametrize("features", ["plain", "all"])
def test_a_long_row_is_split_beside_many_short_ones(monkeypatch, features):
    """The number of rows alone would give it to one program."""
    launches = []
    for kernel in (_attend, _merge):
        monkeypatch.setattr(kernel, "run", watched(kernel.run, launches))
    case = Case([1, 2, 1, 1], [40, 5000, 3, 90], kv_heads=2, max_length=8192, **FEATURES[features])
    assert_exact(case.kernel(processors=2), case.oracle())
    assert launches == [(4, 2, 4), (4, 2, 4)]


def watched(run, launches):
    def launch(*args, grid, **kwargs):
        launches.append(grid)
        return run(*args, grid=grid, **kwargs)

    return launch


def test_tiles_fit_the_accelerator():
    for pairs in (1, 4, 17, 136):
        for width in (16, 64, 128, 256):
            for element_size in (2, 4):
                block_m, block_n = tile_sizes(pairs, width, element_size)
                assert 16 <= block_m <= 128
                assert 16 <= block_n <= 64
                assert block_n * width * element_size <= 2**14


COMPILE = """
import dataclasses
from langchain_eft.engine.attention import triton as module

compile_only(module._attend)
compile_only(module._merge)
for Driver.capability, queries, dim, starts, features in [
    (80, 1, 128, False, {}),
    (80, 17, 256, True, {}),
    (80, 256, 128, True, {}),
    (120, 256, 128, True, {}),
    (90, 256, 64, True, {"sinks": meta(32), "sliding_window": 128}),
    (90, 17, 80, False, {"sliding_window": 128, "softcap": 30.0, "sinks": meta(32)}),
]:
    numbers = [meta(4, dtype=torch.int32) for _ in range(3)]
    rows = module.PagedRows(meta(4, 64, dtype=torch.int32), *numbers, 16, queries, 1024)
    if not starts:
        rows = dataclasses.replace(rows, starts=None)
    query, new, pool = meta(4 * queries, 32, dim), meta(4 * queries, 8, dim), meta(4096, 8, dim)
    module.paged_attention_kernel(
        query, new, new, pool, pool, rows, torch.empty_like(query), scaling=0.1, processors=108, **features
    )
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    shared_memory = compiled_for_gpus(COMPILE, str(tmp_path))
    assert len(shared_memory) == 9, "two launches where the context is split, else one"
    assert max(shared_memory[:6]) <= 99 * 1024, "more than the smallest GPU since Ampere has"
    assert max(shared_memory[6:]) <= 227 * 1024, "more than an H100 has"
    tile = 2 * 64 * 128 * 2
    assert shared_memory[0] > 2 * tile, "keys and values of the next step are read while some are multiplied"


@pytest.mark.parametrize("kind", [*slow("padded"), *full("compact")])
def test_the_engine_decodes_with_the_kernels(family, engine, reference, monkeypatch, kind):
    """A long prompt's chunk, decoding and verification with the kernels, and with adapters in fused layers.

    Rounds also combine, draw and accept with kernels: sampled rows get the tokens that torch draws.
    """
    sampled = [
        request([5, 6, 7], {"one": 1.0}, sampling, max_tokens=3, speculation=2)
        for sampling in (SamplingParams(seed=3), SamplingParams(temperature=1.5, min_p=0.02, seed=4))
    ]
    expected = [Recorder() for _ in sampled]
    for each, recorder in zip(sampled, expected, strict=True):
        engine.submit(each, recorder)
    wait_until(lambda: all(recorder.ended for recorder in expected))
    run_triton_everywhere(monkeypatch, device_kernels, paged)
    device = "cuda" if DEVICE == "cuda" else "cpu"
    options = {"kv_cache_tokens": 512, "block_size": 8}
    with kind_of_rounds(kind):
        kernels = Engine(family.recipe, EngineConfig(device=device, dtype="float32", **options))
    work = [
        ([*range(30, 49)], {"one": 1.0}, 3, Recorder()),
        ([9, 8], {"one": 0.5, "two": 0.5}, "off", Recorder()),
    ]
    try:
        for prompt, mixture, draft, recorder in work:
            kernels.submit(request(prompt, mixture, max_tokens=4, speculation=draft), recorder)
        actual = [Recorder() for _ in sampled]
        for each, recorder in zip(sampled, actual, strict=True):
            kernels.submit(each, recorder)
        wait_until(lambda: all(r.ended for r in [*actual, *(recorder for *_, recorder in work)]))
        assert [recorder.tokens for recorder in actual] == [recorder.tokens for recorder in expected]
        for prompt, mixture, _, recorder in work:
            assert recorder.tokens == reference.greedy(prompt, mixture, 4)
    finally:
        kernels.close()
