"""Runner V2 without a GPU: Triton's interpreter runs its kernels."""

from __future__ import annotations


def let_triton_interpret() -> None:
    """Give Triton a backend for CPUs that is never active, for its interpreter needs none."""
    from triton import backends

    class Driver:
        @staticmethod
        def is_active() -> bool:
            return False

    class Backend:
        driver, compiler = Driver, None

    backends.backends["cpu"] = Backend
