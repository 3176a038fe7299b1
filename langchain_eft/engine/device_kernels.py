"""Operations that have a Triton kernel beside the torch function that defines them.

A kernel must equal its function; it takes fewer launches. The device of the tensors decides which one runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether the Triton kernels run on a device: on GPUs since Ampere, if Triton is installed."""
    return (
        device.type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class Operation(Generic[P, R]):
    """A function of tensors that a kernel computes on devices which have it.

    Attributes:
        definition: The torch function.

    Args:
        definition: As the attribute.
        kernel: The kernel, as "module:function". It is imported where it runs, for it imports Triton.
    """

    def __init__(self, definition: Callable[P, R], kernel: str) -> None:
        update_wrapper(self, definition)
        self.definition, self._path = definition, kernel

    @cached_property
    def kernel(self) -> Callable[P, R]:
        """The function that launches the kernel."""
        module, _, name = self._path.partition(":")
        kernel: Callable[P, R] = getattr(import_module(f"langchain_eft.engine.{module}"), name)
        return kernel

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute the operation on the device of the first tensor."""
        device = next(value.device for value in args if isinstance(value, Tensor))
        return (self.kernel if has_kernel(device) else self.definition)(*args, **kwargs)


def with_kernel(kernel: str) -> Callable[[Callable[P, R]], Operation[P, R]]:
    """Decorate a torch function with its kernel, such as "decoding.triton:draw_kernel"."""
    return lambda definition: Operation(definition, kernel)
