"""Each operation on a tile against numpy, at addresses of arrays."""

import numba
import numpy as np
import pytest
from llvmlite import binding

from langchain_eft.engine.kernels import simd

ROWS, GROUPS = 3, 2
COUNT = ROWS * GROUPS
STEP = simd.VECTOR_BYTES
HAS_TABLES = bool(binding.get_host_cpu_features().get("avx512f"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def numbers(rng, *shape):
    return rng.standard_normal((*shape, simd.LANES)).astype(np.float32)


def run(kernel, *arrays, count=COUNT):
    """What a kernel writes at its last address, for arrays at its other ones: [count, 16]."""
    out = np.full((count, simd.LANES), np.nan, np.float32)
    numba.njit(kernel)(*(array.ctypes.data for array in (*arrays, out)))
    return out


def stored_numbers(kind, values):
    if kind == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return (values * 100 if "int" in kind else values).astype(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "uint8"])
def test_numbers_of_every_stored_type_become_float32(rng, kind):
    stored = stored_numbers(kind, np.abs(numbers(rng, 3)) if kind == "uint8" else numbers(rng, 3))
    step = stored.itemsize * simd.LANES

    def kernel(x, out):
        simd.store(simd.load(x + step, 2, step, kind), out, STEP, 2)

    expected = (stored.astype(np.uint32) << 16).view(np.float32) if kind == "bfloat16" else stored
    np.testing.assert_array_equal(run(kernel, stored, count=2), expected[1:].astype(np.float32))


def test_rows_of_a_tile_are_stored_apart(rng):
    tile = numbers(rng, COUNT)

    def kernel(x, out):
        simd.store(simd.load(x, COUNT, STEP, "float32"), out, 3 * STEP, ROWS)

    out = run(kernel, tile, count=3 * ROWS).reshape(ROWS, 3, simd.LANES)
    np.testing.assert_array_equal(out[:, :GROUPS], tile.reshape(ROWS, GROUPS, simd.LANES))
    assert np.isnan(out[:, GROUPS]).all()


@pytest.mark.parametrize("count", [0, 1, 9, 16])
def test_some_numbers_are_read_and_written_and_no_other(rng, count):
    x = numbers(rng, 1)

    def kernel(x, out):
        some = simd.load_some(x, count)
        simd.store(some, out, STEP, 1)
        simd.store_some(simd.load(x, 1, STEP, "float32"), out + STEP, count)

    read, written = run(kernel, x, count=2)
    np.testing.assert_array_equal(read, np.where(np.arange(16) < count, x[0], 0))
    np.testing.assert_array_equal(written, np.where(np.arange(16) < count, x[0], np.nan))


def test_full_and_zeros():
    def kernel(out):
        simd.store(simd.full(np.float32(0.1), 2), out, STEP, 2)
        simd.store(simd.zeros(1), out + 2 * STEP, STEP, 1)

    np.testing.assert_array_equal(run(kernel, count=3)[:, 0], np.float32([0.1, 0.1, 0]))


def test_products_of_inputs_side_by_side(rng):
    inputs, step = 3, GROUPS * simd.LANES
    total, x = numbers(rng, COUNT), numbers(rng, ROWS)
    weights = rng.integers(-128, 128, (inputs, GROUPS, simd.LANES)).astype(np.int8)

    def kernel(total, weights, x, out):
        tile = simd.load(total, COUNT, STEP, "float32")
        tile = simd.products(tile, weights, GROUPS, step, "int8", x, STEP, inputs)
        simd.store(tile, out, GROUPS * STEP, ROWS)

    expected = total.reshape(ROWS, GROUPS, -1) + np.einsum("ri,igl->rgl", x[:, :inputs], weights)
    out = run(kernel, total, weights, x)
    np.testing.assert_allclose(out.reshape(ROWS, GROUPS, -1), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "by_table", [False, pytest.param(True, marks=pytest.mark.skipif(not HAS_TABLES, reason="no AVX-512"))]
)
def test_nibble_products_take_the_inputs_in_the_order_of_a_file_s_bytes(rng, by_table):
    blocks = rng.integers(0, 256, (GROUPS * simd.LANES, 16)).astype(np.uint8)
    x = rng.standard_normal((ROWS, 32)).astype(np.float32)
    packed = blocks.view(np.uint32).T.copy()
    step = GROUPS * STEP

    def kernel(weights, x, out):
        tile = simd.nibble_products(simd.zeros(COUNT), weights, GROUPS, step, by_table, x, 128, 4)
        simd.store(tile, out, GROUPS * STEP, ROWS)

    expected = x @ np.concatenate([blocks & 15, blocks >> 4], 1).T.astype(np.float32)
    out = run(kernel, packed, x).reshape(ROWS, -1)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


def test_outer_adds_a_number_of_each_row_times_each_vector(rng):
    total, vectors, x = numbers(rng, COUNT), numbers(rng, GROUPS), numbers(rng, ROWS)

    def kernel(total, vectors, x, out):
        tile = simd.load(total, COUNT, STEP, "float32")
        tile = simd.outer(tile, simd.load(vectors, GROUPS, STEP, "float32"), x + 4, STEP)
        simd.store(tile, out, GROUPS * STEP, ROWS)

    product = x[:, 1, None, None].astype(np.float64) * vectors
    expected = (total.reshape(ROWS, GROUPS, -1) + product).astype(np.float32)  # one rounding
    np.testing.assert_array_equal(run(kernel, total, vectors, x), expected.reshape(COUNT, -1))


def test_fold_adds_a_tile_with_a_factor_for_each_group(rng):
    total, factors, tile = numbers(rng, COUNT), numbers(rng, GROUPS), numbers(rng, COUNT)

    def kernel(total, factors, tile, out):
        total = simd.load(total, COUNT, STEP, "float32")
        factors = simd.load(factors, GROUPS, STEP, "float32")
        simd.store(simd.fold(total, factors, simd.load(tile, COUNT, STEP, "float32")), out, STEP, COUNT)

    expected = (total + np.tile(factors, (ROWS, 1)).astype(np.float64) * tile).astype(np.float32)
    np.testing.assert_array_equal(run(kernel, total, factors, tile), expected)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum"])
@pytest.mark.parametrize("others", [COUNT, ROWS], ids=["tile", "vector for each row"])
def test_elementwise(rng, name, others):
    operation, tile, other = getattr(simd, name), numbers(rng, COUNT), numbers(rng, others)

    def kernel(tile, other, out):
        other = simd.load(other, others, STEP, "float32")
        simd.store(operation(simd.load(tile, COUNT, STEP, "float32"), other), out, STEP, COUNT)

    expected = getattr(np, name)(tile, np.repeat(other, COUNT // others, 0))
    np.testing.assert_array_equal(run(kernel, tile, other), expected)


def test_exp():
    x = np.linspace(-90, 90, 100 * simd.LANES, dtype=np.float32).reshape(-1, simd.LANES)

    def kernel(x, out):
        for i in range(100):
            simd.store(simd.exp(simd.load(x + i * STEP, 1, STEP, "float32")), out + i * STEP, STEP, 1)

    expected = np.exp(np.clip(x, np.float32(-87.3), 88).astype(np.float64))
    np.testing.assert_allclose(run(kernel, x, count=100), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "rounding"), [("sum", 1e-5), ("max", 0)])
def test_over_rows(rng, name, rounding):
    tile = numbers(rng, COUNT)
    operation = {"sum": simd.row_sum, "max": simd.row_maximum}[name]

    def kernel(tile, out):
        simd.store(operation(simd.load(tile, COUNT, STEP, "float32"), ROWS), out, STEP, ROWS)

    expected = getattr(tile.reshape(ROWS, -1), name)(1)[:, None].repeat(simd.LANES, 1)
    np.testing.assert_allclose(run(kernel, tile, count=ROWS), expected, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("bounds", [(0, 16), (3, 9), (-5, 2), (12, 30), (20, 30)])
def test_lanes_between_the_bounds_of_their_row(rng, bounds):
    tile, start = numbers(rng, 2), 100
    both = np.array([[*bounds, 0], [2, 5, 0]], np.int32) + np.int32(start)

    def kernel(tile, bounds, out):
        x = simd.load(tile, 2, STEP, "float32")
        simd.store(simd.between(x, bounds, 12, start, np.float32(7)), out, STEP, 2)

    lane = np.arange(simd.LANES) + start
    kept = (both[:, :1] <= lane) & (lane < both[:, 1:2])
    np.testing.assert_array_equal(run(kernel, tile, both, count=2), np.where(kept, tile, np.float32(7)))


def test_tanh():
    x = np.concatenate([np.linspace(-20, 20, 1200), np.linspace(-0.4, 0.4, 384), np.zeros(16)])
    x = x.astype(np.float32).reshape(100, simd.LANES)

    def kernel(x, out):
        for i in range(100):
            simd.store(simd.tanh(simd.load(x + i * STEP, 1, STEP, "float32")), out + i * STEP, STEP, 1)

    np.testing.assert_allclose(run(kernel, x, count=100), np.tanh(x.astype(np.float64)), rtol=4e-7)


def test_functions_of_no_number_are_none():
    x = np.full((1, simd.LANES), np.nan, np.float32)

    def kernel(x, out):
        tile = simd.load(x, 1, STEP, "float32")
        simd.store(simd.exp(tile), out, STEP, 1)
        simd.store(simd.tanh(tile), out + STEP, STEP, 1)

    out = np.zeros((2, simd.LANES), np.float32)
    numba.njit(kernel)(x.ctypes.data, out.ctypes.data)
    assert np.isnan(out).all()


def test_scalars(rng):
    x, integers = numbers(rng, 1), np.array([-5, 7], np.int64)

    def kernel(x, integers, out):
        simd.store_float(simd.first(simd.load(x, 1, STEP, "float32")), out)
        simd.store_float(simd.load_float(x + 8), out + 4)
        simd.store_float(np.float32(simd.load_int64(integers)), out + 8)
        simd.store_float(np.float32(simd.load_int32(integers + 8)), out + 12)

    np.testing.assert_array_equal(run(kernel, x, integers, count=1)[0, :4], [x[0, 0], x[0, 2], -5, 7])


def test_small_integers_have_no_sign_and_are_cut_off():
    bytes_, halves = np.array([200, 255, 0], np.uint8), np.array([60_000, 1, 0], np.uint16)

    def kernel(bytes_, halves):
        simd.store_uint8(simd.load_uint8(bytes_) + simd.load_uint8(bytes_ + 1), bytes_ + 2)
        simd.store_uint16(simd.load_uint16(halves) + 6000, halves + 4)

    numba.njit(kernel)(bytes_.ctypes.data, halves.ctypes.data)
    assert (bytes_.tolist(), halves.tolist()) == ([200, 255, 199], [60_000, 1, 464])


def test_prefetch_reads_nothing():
    def kernel(out):
        simd.prefetch(-4096, 256)
        simd.store(simd.zeros(1), out, STEP, 1)

    assert (run(kernel, count=1) == 0).all()
