"""Weights that the kernels of a CPU multiply, in the place of a layer's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from langchain_eft.engine.kernels.formats import Packed
from langchain_eft.engine.kernels.products import Product


class PackedWeight(Tensor):
    """A packed weight, which `torch.nn.functional.linear` multiplies and `embedding` looks up.

    To others it is an [out, in] float32 tensor whose values cannot be read.
    """

    parts: tuple[Packed, ...]  # some of the outputs each, in the kernels' layout

    @classmethod
    def of(cls, *parts: Packed) -> Self:
        """Present a packed weight as a tensor."""
        shape = (sum(part.outputs for part in parts), parts[0].inputs)
        weight: Self = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)
        weight.parts = parts
        return weight

    @classmethod
    def join(cls, weights: Iterable[Any]) -> Self:
        """The outputs of several packed weights, one after the other. No weight is copied."""
        return cls.of(*(part for weight in weights for part in weight.parts))

    def product(self, x: Tensor) -> Tensor:
        """`x @ weight.T`: [N, in] float32 to [N, out] float32. A row does not depend on other rows."""
        return self._product(x)

    @cached_property
    def _product(self) -> Product:
        return Product(self.parts)

    def values(self) -> Tensor:
        """A plain copy, [out, in] float32."""
        return torch.cat([part.rows(torch.arange(part.outputs)) for part in self.parts])

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Size in memory."""
        return sum(part.nbytes for part in self.parts)

    def __repr__(self) -> str:  # type: ignore[override]
        formats = "+".join(part.format.name for part in self.parts)
        return f"{type(self).__name__}({formats}, shape={tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Multiply and look up in the forward passes of torch's layers, which transformers' layers use."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func is F.embedding:
            return _embedding(*args[:2])
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


def _embedding(ids: Tensor, weight: PackedWeight) -> Tensor:
    (table,) = weight.parts  # only products are fused
    return table.rows(ids.flatten()).view(*ids.shape, -1)
