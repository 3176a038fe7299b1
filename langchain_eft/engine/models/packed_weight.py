"""Weights of linear layers in fewer bits, packed for fast products with float32 activations on a CPU."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor


def has_fbgemm() -> bool:
    """Whether torch has FBGEMM for this processor, as its builds for x86 have."""
    return "fbgemm" in torch.backends.quantized.supported_engines


class PackedWeight(Tensor):
    """A packed weight, which `torch.nn.functional.linear` multiplies.

    To others it is an [out, in] float32 tensor whose values cannot be read.

    Attributes:
        packed: The weight in the library's own layout.
        bytes_per_value: Size of a value in memory.
    """

    packed: Any
    bytes_per_value: ClassVar[int]

    @classmethod
    def _of_shape(cls, shape: torch.Size) -> Self:
        weight: Self = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)
        return weight

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """`x @ weight.T`: [N, in] float32 to [N, out] float32. A row does not depend on other rows."""

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Size in memory."""
        return self.numel() * self.bytes_per_value

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}(shape={tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Multiply in the forward pass of `torch.nn.Linear`, which transformers' own pass uses."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what would read the values."""
        raise TypeError(f"{func} cannot read a {cls.__name__}: only products with it can be computed.")


def _linear(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    y = weight.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
    return y if bias is None else y + bias
