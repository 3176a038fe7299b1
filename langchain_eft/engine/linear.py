"""Linear layers for packed rows: one weight for every variant, low-rank updates by row, fast on few rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langchain_eft.engine.adapters import LoraAdapter, LoraUpdate

_FEW_ROWS = range(2, 129)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, with the operands in the order that the device prefers.

    On a CPU a float32 product of few rows is bound by reading the weight; BLAS reaches that bound only with
    the weight as its left operand (for 2 to 8 rows, two to three times faster than `F.linear`).

    Args:
        x: [N, in].
        weight: [out, in].
        bias: [out] or None.

    Returns:
        [N, out].
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[0] in _FEW_ROWS:
        y = (weight @ x.t()).t().contiguous()
        return y if bias is None else y + bias
    return F.linear(x, weight, bias)


class VariantRouter:
    """Which variant each packed token runs through; shared by all linear layers of one model."""

    def __init__(self) -> None:
        self._variants: Tensor | None = None
        self._span = (0, 0)
        self._masks: dict[tuple[int, ...], tuple[int, int, Tensor]] = {}

    def route(self, variants: Tensor, active: Sequence[int]) -> None:
        """Set the variants of the next forward.

        Args:
            variants: [N] int64; 0 is the plain model, i the i-th adapter.
            active: The distinct variants among them.
        """
        adapters = [variant - 1 for variant in active if variant]
        self._span = (min(adapters), max(adapters) + 1) if adapters else (0, 0)
        self._variants = variants
        self._masks.clear()

    def mask(self, ranks: tuple[int, ...], owner: Tensor) -> tuple[int, int, Tensor] | None:
        """The part of a stacked update that this forward needs.

        Args:
            ranks: Rank of each adapter in this layer (0 where it has none).
            owner: [sum(ranks)] int64, the variant that each stacked rank belongs to.

        Returns:
            First and last stacked rank, and [N, last - first] bool: which token uses which rank; None where
            no token of this forward uses any.
        """
        if ranks not in self._masks:
            first, last = (sum(ranks[:edge]) for edge in self._span)
            assert self._variants is not None  # noqa: S101  (route() comes first)
            self._masks[ranks] = first, last, self._variants[:, None] == owner[None, first:last]
        first, last, mask = self._masks[ranks]
        return None if first == last else (first, last, mask)


class StackedLinear(nn.Module):
    """A linear layer with the low-rank updates of all adapters stacked along their rank.

    All rows go through one weight; the updates of all active adapters are one pair of products, masked so
    that every token sees only its own adapter. Rows may come in any order and adapters may have any rank.
    """

    down: Tensor
    up: Tensor
    owner: Tensor

    def __init__(
        self, linear: nn.Linear, updates: Sequence[LoraUpdate | None], router: VariantRouter
    ) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._router = router
        self._ranks = tuple(update.down.shape[0] if update else 0 for update in updates)
        present = [update for update in updates if update]
        if present:
            owner = [i + 1 for i, rank in enumerate(self._ranks) for _ in range(rank)]
            self.register_buffer("down", torch.cat([u.down for u in present], 0))
            self.register_buffer("up", torch.cat([u.up for u in present], 1))
            self.register_buffer("owner", torch.tensor(owner, device=self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]; the leading dimensions are the packed tokens."""
        flat = x.reshape(-1, x.shape[-1])
        y = product(flat, self.weight, self.bias)
        routed = self._router.mask(self._ranks, self.owner) if any(self._ranks) else None
        if routed is not None:
            first, last, mask = routed
            y = y + product(product(flat, self.down[first:last]) * mask, self.up[:, first:last])
        return y.view(*x.shape[:-1], -1)


def stack_adapters(module: nn.Module, adapters: Sequence[LoraAdapter], router: VariantRouter) -> None:
    """Replace the linear layers of `module` by stacked ones, in place.

    Layers that no adapter touches are replaced only where that makes them faster (float32 on a CPU).

    Raises:
        KeyError: An adapter names a layer that the module has not, or one that is not a plain linear layer.
    """
    named = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear}
    for adapter in adapters:
        for name in adapter.updates:
            if name not in named:
                raise KeyError(name)
    for name, layer in named.items():
        updates = [adapter.updates.get(name) for adapter in adapters]
        on_cpu = layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32
        if any(updates) or on_cpu:
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, StackedLinear(layer, updates, router))
