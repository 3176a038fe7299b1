"""A kernel for tests: it adds two vectors. Its argument is the address of three addresses."""

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import inlined


def build(name, target):
    """The kernel, which has this name alone."""
    assert name == "add"

    @inlined
    def load(address):
        return simd.load(address, 1, 0, "float32")

    def add(addresses):
        x, y, out = (
            simd.load_int64(addresses),
            simd.load_int64(addresses + 8),
            simd.load_int64(addresses + 16),
        )
        simd.store(simd.add(load(x), load(y)), out, 0, 1)

    return add
