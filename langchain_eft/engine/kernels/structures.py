"""How kernels read their arguments, and draw shares of their work."""

from __future__ import annotations

import ctypes
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from langchain_eft.engine.kernels import lanes, simd
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.program import Work

_TYPES = {ctypes.c_int64: (types.int64, ir.IntType(64)), ctypes.c_float: (types.float32, ir.FloatType())}
_DRAWN, _ENTERED = Work.drawn.offset, Work.entered.offset


def reader(structure: type[ctypes.Structure], **referred: type[ctypes.Structure]) -> Any:
    """A function that reads a structure at an address, as a named tuple of its fields.

    LLVM drops the fields that a kernel does not use.

    Args:
        structure: The structure.
        **referred: Structures whose addresses are fields of it: their fields belong to the tuple too.
    """
    kinds = {name: kind for each in (structure, *referred.values()) for name, kind in _fields(each).items()}
    view: Any = namedtuple(structure.__name__, kinds)  # type: ignore[misc]
    result = types.NamedTuple([_TYPES[kind][0] for kind in kinds.values()], view)

    @intrinsic  # type: ignore[untyped-decorator]
    def read(_: Any, address: Any) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            numbers = _load(builder, values[0], structure)
            for field, other in referred.items():
                numbers |= _load(builder, numbers[field], other)
            return context.make_tuple(builder, signature.return_type, list(numbers.values()))

        return result(address), generate

    return read


def _fields(structure: type[ctypes.Structure]) -> dict[str, Any]:
    """The types of a structure's fields, those of its base first."""
    bases = reversed(structure.__mro__)
    return {name: kind for base in bases for name, kind in base.__dict__.get("_fields_", ())}


def _load(builder: Any, address: Any, structure: type[ctypes.Structure]) -> dict[str, Any]:
    numbers = {}
    for name, kind in _fields(structure).items():
        at = lanes.at(builder, address, getattr(structure, name).offset)
        numbers[name] = lanes.load_scalar(builder, at, _TYPES[kind][1])
    return numbers


@inlined
def draw(arguments: int, share: int) -> Any:
    """The first of the next `share` pieces of work, which no other thread gets."""
    return simd.atomic_add(arguments + _DRAWN, share)


def by_rows(read: Any, of_row: Any) -> Callable[[int], None]:
    """A kernel whose threads draw rows.

    Args:
        read: From the address of the arguments to their named tuple.
        of_row: Computes a row: a function of the tuple and the row's number.
    """

    def kernel(arguments: int) -> None:
        call = read(arguments)
        row = draw(arguments, 1)
        while row < call.rows:
            of_row(call, row)
            row = draw(arguments, 1)

    return kernel


@inlined
def enter(arguments: int) -> Any:
    """The number of this thread among those that work."""
    return simd.atomic_add(arguments + _ENTERED, 1)
