"""Explicit SIMD for numba: tiles of vectors, held in registers, and the few operations that kernels need.

A tile is R x G vectors of 16 float32 numbers; a vector is a tile of one. Kernels call these functions inside
`numba.njit`, much as Triton's kernels call those of `tl`. Addresses are plain int64 numbers, so `address +
offset` is readable. Nothing is bounded: a kernel that reads beyond its memory crashes the process.

Counts, types and indices must be literals: constants of the kernel's own code, or variables of the function
that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature, signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic

from langchain_eft.engine.kernels import lanes
from langchain_eft.engine.kernels.block_formats import nibble_inputs
from langchain_eft.engine.kernels.target import LANES

VECTOR_BYTES = 4 * LANES
"""Size of a vector in memory."""

_ADDRESS = types.int64
_Emit = Callable[..., Any]


class Tile(types.Type):  # type: ignore[misc]
    """The type of a tile.

    Attributes:
        count: Number of its vectors.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"tile({count})")


@register_default(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(lanes.FLOATS, tile.count))


def _vectors(builder: Any, tile: Any) -> list[Any]:
    return [builder.extract_value(tile, i) for i in range(tile.type.count)]


def _tile(builder: Any, vectors: list[Any]) -> Any:
    tile = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        tile = builder.insert_value(tile, vector, i)
    return tile


def _operation(typed: Callable[..., tuple[Any, _Emit]]) -> Any:
    """A function for kernels.

    Args:
        typed: From the types of the arguments to the signature and a function that emits LLVM code for a
            builder and the arguments' values.
    """

    def define(_: Any, *arguments: Any) -> tuple[Any, Any]:
        typing, emit = typed(*arguments)

        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            result = emit(builder, *values)
            return context.get_dummy_value() if result is None else result

        return typing, generate

    context, *_ = signature(define).parameters.values()
    parameters = [context, *signature(typed).parameters.values()]  # numba binds arguments by them
    define.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    define.__name__, define.__doc__ = typed.__name__, typed.__doc__
    return intrinsic(prefer_literal=True)(define)


@_operation
def zeros(count: Any) -> tuple[Any, _Emit]:
    """A tile of `count` vectors of zeros."""

    def emit(builder: Any, _: Any) -> Any:
        return _tile(builder, [lanes.floats(0.0)] * count.literal_value)

    return Tile(count.literal_value)(count), emit


@_operation
def full(x: Any, count: Any) -> tuple[Any, _Emit]:
    """A tile of `count` vectors with the float32 `x` in all lanes."""

    def emit(builder: Any, x: Any, _: Any) -> Any:
        return _tile(builder, [lanes.splat(builder, x)] * count.literal_value)

    return Tile(count.literal_value)(types.float32, count), emit


@_operation
def load(address: Any, count: Any, step: Any, stored: Any) -> tuple[Any, _Emit]:
    """A tile of `count` vectors that lie `step` bytes apart, stored in a type of `lanes.load`."""

    def emit(builder: Any, address: Any, _: Any, step: Any, *__: Any) -> Any:
        vectors = []
        for _ in range(count.literal_value):
            vectors.append(lanes.load(builder, address, stored.literal_value))
            address = builder.add(address, step)
        return _tile(builder, vectors)

    return Tile(count.literal_value)(_ADDRESS, count, types.int64, stored), emit


@_operation
def store(tile: Any, address: Any, row_step: Any, rows: Any) -> tuple[Any, _Emit]:
    """Write a tile: the vectors of a row side by side, the rows `row_step` bytes apart."""
    groups = tile.count // rows.literal_value

    def emit(builder: Any, tile: Any, address: Any, row_step: Any, _: Any) -> None:
        for i, vector in enumerate(_vectors(builder, tile)):
            if i and i % groups == 0:
                address = builder.add(address, row_step)
            lanes.store(builder, vector, lanes.at(builder, address, i % groups * VECTOR_BYTES))

    return types.void(tile, _ADDRESS, types.int64, rows), emit


@_operation
def load_some(address: Any, count: Any) -> tuple[Any, _Emit]:
    """A vector of `count` float32 numbers, at most 16, and zeros. `count` may be a variable."""

    def emit(builder: Any, address: Any, count: Any) -> Any:
        return _tile(builder, [lanes.load_some(builder, address, count)])

    return Tile(1)(_ADDRESS, types.int64), emit


@_operation
def store_some(tile: Any, address: Any, count: Any) -> tuple[Any, _Emit]:
    """Write the first `count` numbers of a vector."""

    def emit(builder: Any, tile: Any, address: Any, count: Any) -> None:
        lanes.store_some(builder, builder.extract_value(tile, 0), address, count)

    return types.void(tile, _ADDRESS, types.int64), emit


@_operation
def prefetch(address: Any, size: Any) -> tuple[Any, _Emit]:
    """Ask memory for `size` bytes from an address on. Any address will do."""

    def emit(builder: Any, address: Any, _: Any) -> None:
        for offset in range(0, size.literal_value, 64):
            lanes.prefetch(builder, lanes.at(builder, address, offset))

    return types.void(_ADDRESS, size), emit


def _add_products(
    builder: Any, sums: list[Any], factors: list[Any], x: Any, stride: Any, offset: int = 0
) -> None:
    """`sums[r, g] += factors[g] * x[r]`, where the first row's number is `offset` bytes behind `x`."""
    for row in range(len(sums) // len(factors)):
        number = lanes.splat(
            builder, lanes.load_scalar(builder, lanes.at(builder, x, offset), ir.FloatType())
        )
        for i, factor in enumerate(factors, row * len(factors)):
            sums[i] = lanes.fma(builder, factor, number, sums[i])
        x = builder.add(x, stride)


@_operation
def outer(total: Any, vectors: Any, x: Any, stride: Any) -> tuple[Any, _Emit]:
    """`total[r, g] + vectors[g] * x[r]`, each with one rounding.

    `x` is the address of the first row's float32 number; the others lie `stride` bytes apart.
    """

    def emit(builder: Any, total: Any, vectors: Any, x: Any, stride: Any) -> Any:
        sums = _vectors(builder, total)
        _add_products(builder, sums, _vectors(builder, vectors), x, stride)
        return _tile(builder, sums)

    return total(total, vectors, _ADDRESS, types.int64), emit


@_operation
def products(
    total: Any, weights: Any, groups: Any, step: Any, stored: Any, x: Any, stride: Any, inputs: Any
) -> tuple[Any, _Emit]:
    """`outer` for some inputs, one after the other.

    The weights of an input are `groups` vectors side by side, of a type of `lanes.load`; those of the next
    one lie `step` bytes on. The numbers of a row lie side by side.
    """

    def emit(
        builder: Any, total: Any, weights: Any, _: Any, step: Any, __: Any, x: Any, stride: Any, ___: Any
    ) -> Any:
        sums, kind = _vectors(builder, total), stored.literal_value
        for i in range(inputs.literal_value):
            at = [
                lanes.at(builder, weights, g * lanes.vector_bytes(kind)) for g in range(groups.literal_value)
            ]
            _add_products(builder, sums, [lanes.load(builder, each, kind) for each in at], x, stride, 4 * i)
            weights = builder.add(weights, step)
        return _tile(builder, sums)

    return total(total, _ADDRESS, groups, types.int64, stored, _ADDRESS, types.int64, inputs), emit


@_operation
def nibble_products(
    total: Any, weights: Any, groups: Any, step: Any, by_table: Any, x: Any, stride: Any, vectors: Any
) -> tuple[Any, _Emit]:
    """`outer` for 8 inputs of 4 bits in each of some vectors of int32, that lie `step` bytes apart.

    The inputs of the first vector are those of `nibble_inputs`; each further vector has the next four.
    """

    def emit(
        builder: Any, total: Any, weights: Any, _: Any, step: Any, __: Any, x: Any, stride: Any, ___: Any
    ) -> Any:
        sums, table = _vectors(builder, total), by_table.literal_value
        for vector in range(vectors.literal_value):
            at = [lanes.at(builder, weights, g * VECTOR_BYTES) for g in range(groups.literal_value)]
            packed = [lanes.load_as(builder, each, lanes.BITS) for each in at]
            for i, place in enumerate(nibble_inputs()):
                factors = [lanes.nibble(builder, each, i, by_table=table) for each in packed]
                _add_products(builder, sums, factors, x, stride, 4 * (place + 4 * vector))
            weights = builder.add(weights, step)
        return _tile(builder, sums)

    return total(total, _ADDRESS, groups, types.int64, by_table, _ADDRESS, types.int64, vectors), emit


@_operation
def fold(total: Any, factors: Any, tile: Any) -> tuple[Any, _Emit]:
    """`total[r, g] + factors[g] * tile[r, g]`, each with one rounding."""

    def emit(builder: Any, total: Any, factors: Any, tile: Any) -> Any:
        by_group = _vectors(builder, factors)
        pairs = zip(_vectors(builder, total), _vectors(builder, tile), strict=True)
        return _tile(
            builder,
            [lanes.fma(builder, by_group[i % len(by_group)], y, z) for i, (z, y) in enumerate(pairs)],
        )

    return total(total, factors, tile), emit


def _elementwise(name: str, doc: str, emit_one: Callable[[Any, Any, Any], Any]) -> Any:
    """An operation of each vector of a tile with that of another, which may have one for a whole row."""

    def typed(tile: Any, other: Any) -> tuple[Any, _Emit]:
        def emit(builder: Any, tile: Any, other: Any) -> Any:
            vectors, others = _vectors(builder, tile), _vectors(builder, other)
            groups = len(vectors) // len(others)
            return _tile(builder, [emit_one(builder, v, others[i // groups]) for i, v in enumerate(vectors)])

        return tile(tile, other), emit

    typed.__name__, typed.__doc__ = name, doc
    return _operation(typed)


add = _elementwise("add", "`tile + other`.", lambda builder, x, y: builder.fadd(x, y))
subtract = _elementwise("subtract", "`tile - other`.", lambda builder, x, y: builder.fsub(x, y))
multiply = _elementwise("multiply", "`tile * other`.", lambda builder, x, y: builder.fmul(x, y))
divide = _elementwise("divide", "`tile / other`.", lambda builder, x, y: builder.fdiv(x, y))
maximum = _elementwise("maximum", "The larger numbers of two tiles.", lanes.maximum)


@_operation
def exp(tile: Any) -> tuple[Any, _Emit]:
    """The exponential function: the same bits on every processor, always finite and above zero."""

    def emit(builder: Any, tile: Any) -> Any:
        return _tile(builder, [lanes.exp(builder, vector) for vector in _vectors(builder, tile)])

    return tile(tile), emit


def _over_rows(name: str, doc: str, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """An operation of all numbers of a row: its groups in their order, then the lanes by halves."""

    def typed(tile: Any, rows: Any) -> tuple[Any, _Emit]:
        groups = tile.count // rows.literal_value

        def emit(builder: Any, tile: Any, _: Any) -> Any:
            vectors, results = _vectors(builder, tile), []
            for row in range(rows.literal_value):
                result = vectors[row * groups]
                for vector in vectors[row * groups + 1 : (row + 1) * groups]:
                    result = combine(builder, result, vector)
                results.append(lanes.over_lanes(builder, result, lambda x, y: combine(builder, x, y)))
            return _tile(builder, results)

        return Tile(rows.literal_value)(tile, rows), emit

    typed.__name__, typed.__doc__ = name, doc
    return _operation(typed)


row_sum = _over_rows(
    "row_sum",
    "Each row's sum, in all lanes of a vector: a tile of R.",
    lambda builder, x, y: builder.fadd(x, y),
)
row_maximum = _over_rows(
    "row_maximum", "Each row's largest number, in all lanes of a vector: a tile of R.", lanes.maximum
)


@_operation
def between(tile: Any, bounds: Any, stride: Any, start: Any, other: Any) -> tuple[Any, _Emit]:
    """The lanes of each row's vector that are within the row's bounds; `other`, a float32, in the rest.

    `start` is the number of lane 0. `bounds` is the address of two int32 for the first row: the first lane
    and the one after the last. Those of the other rows lie `stride` bytes apart.
    """

    def emit(builder: Any, tile: Any, bounds: Any, stride: Any, start: Any, other: Any) -> Any:
        kept = []
        for vector in _vectors(builder, tile):
            low, high = (
                lanes.load_scalar(builder, lanes.at(builder, bounds, offset), ir.IntType(32))
                for offset in (0, 4)
            )
            kept.append(lanes.between(builder, vector, start, low, high, other))
            bounds = builder.add(bounds, stride)
        return _tile(builder, kept)

    return tile(tile, _ADDRESS, types.int64, types.int64, types.float32), emit


@_operation
def tanh(tile: Any) -> tuple[Any, _Emit]:
    """The hyperbolic tangent: the same bits on every processor."""

    def emit(builder: Any, tile: Any) -> Any:
        return _tile(builder, [lanes.tanh(builder, vector) for vector in _vectors(builder, tile)])

    return tile(tile), emit


@_operation
def first(tile: Any) -> tuple[Any, _Emit]:
    """The number in the first lane of the first vector."""

    def emit(builder: Any, tile: Any) -> Any:
        return builder.extract_element(builder.extract_value(tile, 0), ir.IntType(32)(0))

    return types.float32(tile), emit


def _load_scalar(name: str, result: Any, stored: Any) -> Any:
    def typed(address: Any) -> tuple[Any, _Emit]:
        return result(_ADDRESS), lambda builder, address: lanes.load_scalar(builder, address, stored)

    typed.__name__, typed.__doc__ = name, f"The {result} at an address."
    return _operation(typed)


load_float = _load_scalar("load_float", types.float32, ir.FloatType())
load_uint8 = _load_scalar("load_uint8", types.uint8, ir.IntType(8))
load_uint16 = _load_scalar("load_uint16", types.uint16, ir.IntType(16))
load_int32 = _load_scalar("load_int32", types.int32, ir.IntType(32))
load_int64 = _load_scalar("load_int64", types.int64, ir.IntType(64))


def _store_scalar(name: str, kind: Any) -> Any:
    def typed(x: Any, address: Any) -> tuple[Any, _Emit]:
        return types.void(kind, _ADDRESS), lanes.store_scalar

    typed.__name__, typed.__doc__ = name, f"Write a {kind} at an address."
    return _operation(typed)


store_float = _store_scalar("store_float", types.float32)
store_uint8 = _store_scalar("store_uint8", types.uint8)
store_uint16 = _store_scalar("store_uint16", types.uint16)
store_int32 = _store_scalar("store_int32", types.int32)
store_int64 = _store_scalar("store_int64", types.int64)


@_operation
def atomic_add(address: Any, number: Any) -> tuple[Any, _Emit]:
    """Add to an int64 that threads share. Returns what it was before."""

    def emit(builder: Any, address: Any, number: Any) -> Any:
        where = lanes.pointer(builder, address, ir.IntType(64))
        return builder.atomic_rmw("add", where, number, "seq_cst")

    return types.int64(_ADDRESS, types.int64), emit


@_operation
def atomic_load(address: Any) -> tuple[Any, _Emit]:
    """The int64 that threads share at an address."""

    def emit(builder: Any, address: Any) -> Any:
        return builder.load_atomic(lanes.pointer(builder, address, ir.IntType(64)), "seq_cst", 8)

    return types.int64(_ADDRESS), emit


@_operation
def atomic_store(number: Any, address: Any) -> tuple[Any, _Emit]:
    """Write an int64 that threads share."""

    def emit(builder: Any, number: Any, address: Any) -> None:
        where = lanes.pointer(builder, address, ir.IntType(64))
        builder.store_atomic(number, where, "seq_cst", 8)

    return types.void(types.int64, _ADDRESS), emit


@_operation
def call(function: Any, argument: Any) -> tuple[Any, _Emit]:
    """Call a function of one int64 by its address."""

    def emit(builder: Any, function: Any, argument: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(lanes.pointer(builder, function, kind), [argument])

    return types.void(_ADDRESS, types.int64), emit
