"""LLVM code for vectors of 16 numbers. It knows nothing of numba.

LLVM makes of 16 lanes one register of AVX-512, two of AVX2 or four of NEON. Every operation has one meaning
and one rounding, so a kernel gives the same bits on all of them. Addresses are int64 values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from langchain_eft.engine.kernels.target import LANES

FLOATS = ir.VectorType(ir.FloatType(), LANES)
BITS = ir.VectorType(ir.IntType(32), LANES)

LOWEST = -1e30
"""Stands for minus infinity where a difference of two of them must be a number."""

_UNDEFINED = ir.Constant(FLOATS, ir.Undefined)
_STORED = {
    "float32": ir.FloatType(),
    "float16": ir.HalfType(),
    "bfloat16": ir.IntType(16),
    "int8": ir.IntType(8),
    "uint8": ir.IntType(8),
}
_EXPONENT_BITS = 23
_LOG_2_HIGH, _LOG_2_LOW = 0.693359375, -2.12194440e-4
_EXP_TERMS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_TANH_TERMS = (-1382 / 155925, 62 / 2835, -17 / 315, 2 / 15, -1 / 3)


def floats(value: float) -> Any:
    """A float32 in all lanes."""
    return ir.Constant(FLOATS, [float(np.float32(value))] * LANES)


def bits(value: int) -> Any:
    """An int32 in all lanes."""
    return ir.Constant(BITS, [value] * LANES)


def splat(builder: Any, scalar: Any) -> Any:
    """A scalar value in all lanes."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    vector = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(vector, undefined, bits(0))


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    """The pointer of an address."""
    return builder.inttoptr(address, kind.as_pointer())


def at(builder: Any, address: Any, offset: int) -> Any:
    """An address `offset` bytes further on."""
    return builder.add(address, address.type(offset))


def load_as(builder: Any, address: Any, kind: Any) -> Any:
    """A vector as it is stored, at any address."""
    loaded = builder.load(pointer(builder, address, kind))
    loaded.align = 1
    return loaded


def load(builder: Any, address: Any, stored: str) -> Any:
    """16 numbers as float32, exactly.

    Args:
        builder: LLVM's builder.
        address: Where they are.
        stored: Their type in memory: float32, float16, bfloat16, int8 or uint8.
    """
    loaded = load_as(builder, address, ir.VectorType(_STORED[stored], LANES))
    if stored == "float32":
        return loaded
    if stored == "float16":
        return builder.fpext(loaded, FLOATS)
    if stored == "bfloat16":
        return builder.bitcast(builder.shl(builder.zext(loaded, BITS), bits(16)), FLOATS)
    widen = builder.sext if stored == "int8" else builder.zext
    return builder.sitofp(widen(loaded, BITS), FLOATS)


def vector_bytes(stored: str) -> int:
    """Size of 16 numbers of a type of `load`."""
    return LANES * {"float32": 4, "float16": 2, "bfloat16": 2}.get(stored, 1)


def store(builder: Any, vector: Any, address: Any) -> None:
    """Write 16 float32 numbers at any address."""
    builder.store(vector, pointer(builder, address, FLOATS)).align = 1


def _first_lanes(builder: Any, count: Any) -> Any:
    """Whether each lane is one of the first `count`, an int64."""
    number = splat(builder, builder.trunc(count, ir.IntType(32)))
    return builder.icmp_signed("<", ir.Constant(BITS, list(range(LANES))), number)


def load_some(builder: Any, address: Any, count: Any) -> Any:
    """`count` float32 numbers, an int64, and zeros in the other lanes. No other number is read."""
    where, kept = pointer(builder, address, FLOATS), _first_lanes(builder, count)
    values = [where, ir.IntType(32)(4), kept, floats(0.0)]
    return call(builder, f"llvm.masked.load.v{LANES}f32.p0", FLOATS, values)


def store_some(builder: Any, vector: Any, address: Any, count: Any) -> None:
    """Write the first `count` numbers, an int64."""
    where, kept = pointer(builder, address, FLOATS), _first_lanes(builder, count)
    values = [vector, where, ir.IntType(32)(4), kept]
    call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), values)


def load_scalar(builder: Any, address: Any, kind: Any) -> Any:
    """One number, at any address."""
    return builder.load(pointer(builder, address, kind), align=1)


def store_scalar(builder: Any, value: Any, address: Any) -> None:
    """Write one number."""
    builder.store(value, pointer(builder, address, value.type))


def call(builder: Any, name: str, result: Any, values: list[Any]) -> Any:
    """Call an intrinsic of LLVM."""
    kind = ir.FunctionType(result, [value.type for value in values])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, values)


def prefetch(builder: Any, address: Any) -> None:
    """Ask memory for the 64 bytes of an address, into the second cache. Any address will do."""
    integer = ir.IntType(32)
    where = pointer(builder, address, ir.IntType(8))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [where, integer(0), integer(2), integer(1)])


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """`x * y + z` with one rounding."""
    return call(builder, f"llvm.fma.v{LANES}f32", FLOATS, [x, y, z])


def maximum(builder: Any, x: Any, y: Any) -> Any:
    """The larger numbers; those of `y` where `x` is NaN."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def over_lanes(builder: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """The sum, or another combination, of all lanes, in all lanes: halves are combined, four times."""
    half = LANES // 2
    while half:
        others = ir.Constant(BITS, [lane ^ half for lane in range(LANES)])
        vector = combine(vector, builder.shuffle_vector(vector, _UNDEFINED, others))
        half //= 2
    return vector


def between(builder: Any, vector: Any, start: Any, low: Any, high: Any, other: Any) -> Any:
    """The lanes from `low` to before `high`, int32 values, where lane 0 is number `start`; others `other`."""
    first = splat(builder, builder.trunc(start, ir.IntType(32)))
    numbers = builder.add(ir.Constant(BITS, list(range(LANES))), first)
    kept = builder.and_(
        builder.icmp_signed(">=", numbers, splat(builder, low)),
        builder.icmp_signed("<", numbers, splat(builder, high)),
    )
    return builder.select(kept, vector, splat(builder, other))


def nibble(builder: Any, packed: Any, index: int, *, by_table: bool) -> Any:
    """The index-th 4 bits of each lane, as float32.

    Args:
        builder: LLVM's builder.
        packed: A vector of int32.
        index: 0 to 7, from the lowest bits.
        by_table: Whether to look the numbers up in a register, as AVX-512 can: it reads 4 bits of an index.
    """
    shifted = builder.lshr(packed, bits(4 * index)) if index else packed
    if by_table:
        table = ir.Constant(FLOATS, [float(value) for value in range(LANES)])
        return call(builder, "llvm.x86.avx512.permvar.sf.512", FLOATS, [table, shifted])
    return builder.sitofp(builder.and_(shifted, bits(15)), FLOATS)


def exp(builder: Any, x: Any) -> Any:
    """The exponential function, by Cephes' polynomial. Of numbers, results are finite and above zero."""
    x = maximum(builder, floats(-87.3), x)  # NaN stays
    x = builder.select(builder.fcmp_ordered(">", x, floats(88.0)), floats(88.0), x)
    magic = floats(1.5 * 2**_EXPONENT_BITS)  # a sum with it is rounded to an integer
    shifted = fma(builder, x, floats(np.log2(np.e)), magic)
    power = builder.fsub(shifted, magic)
    rest = fma(builder, power, floats(-_LOG_2_HIGH), x)
    rest = fma(builder, power, floats(-_LOG_2_LOW), rest)
    polynomial = floats(_EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        polynomial = fma(builder, polynomial, rest, floats(term))
    square = builder.fmul(rest, rest)
    polynomial = fma(builder, polynomial, square, builder.fadd(rest, floats(1.0)))
    exponent = builder.shl(builder.bitcast(shifted, BITS), bits(_EXPONENT_BITS))
    return builder.bitcast(builder.add(builder.bitcast(polynomial, BITS), exponent), FLOATS)


def tanh(builder: Any, x: Any) -> Any:
    """The hyperbolic tangent: of small numbers by its series, of others by the exponential function."""
    square = builder.fmul(x, x)
    series = floats(_TANH_TERMS[0])
    for term in _TANH_TERMS[1:]:
        series = fma(builder, series, square, floats(term))
    series = fma(builder, builder.fmul(series, square), x, x)
    whole = builder.fadd(exp(builder, builder.fadd(x, x)), floats(1.0))
    by_exp = builder.fsub(floats(1.0), builder.fdiv(floats(2.0), whole))
    return builder.select(builder.fcmp_ordered("<", square, floats(0.1)), series, by_exp)
