"""Runner V2 without a GPU: Triton's interpreter runs its kernels."""

from __future__ import annotations


def let_triton_interpret() -> None:
    """Give Triton a backend for CPUs that is never active, and what its interpreter lacks.

    On a GPU, masks may be integers and log1p is a function of the device's library.
    """
    from triton import backends
    from triton import language as tl
    from triton.language.extra import libdevice
    from triton.runtime.interpreter import InterpreterBuilder

    class Driver:
        @staticmethod
        def is_active() -> bool:
            return False

    class Backend:
        driver, compiler = Driver, None

    backends.backends["cpu"] = Backend
    usual_load, usual_store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def load(builder, pointers, mask, *rest):
        mask.data = mask.data.astype(bool)
        return usual_load(builder, pointers, mask, *rest)

    def store(builder, pointers, value, mask, *rest):
        mask.data = mask.data.astype(bool)
        return usual_store(builder, pointers, value, mask, *rest)

    InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = load, store
    libdevice.log1p = lambda x, **_: tl.log(x + 1.0)
