"""Linear layers for packed rows: one weight for every variant, low-rank updates by row, fast on few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langchain_eft.engine.models.lora import LoraAdapter, LoraUpdate
from langchain_eft.engine.models.prepacked import prepack, prepackable, prepacked_product


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, in the way that the device prefers.

    Args:
        x: [N, in].
        weight: [out, in], plain or prepacked.
        bias: [out] or [N, out], or None.

    Returns:
        [N, out].
    """
    if weight.is_mkldnn:
        return prepacked_product(x, weight, bias)
    if bias is not None and bias.dim() == 2:
        return torch.addmm(bias, x, weight.t())
    return F.linear(x, weight, bias)


class FusedLinear(nn.Linear):
    """Several linear layers of one input as one.

    Attributes:
        parts: Name and number of outputs of each of them, in order.
    """

    parts: dict[str, int]

    @classmethod
    def join(cls, layers: Mapping[str, nn.Linear]) -> Self:
        """Put the outputs of some layers one after the other; either all have a bias or none has.

        The layers lose their own weights, so that no memory is taken twice.
        """
        first = next(iter(layers.values()))
        sizes = {name: layer.out_features for name, layer in layers.items()}
        fused = cls(first.in_features, sum(sizes.values()), first.bias is not None, device="meta")
        fused.parts = sizes
        weights = torch.cat([layer.weight for layer in layers.values()])
        fused.weight = nn.Parameter(weights, requires_grad=False)
        if first.bias is not None:
            biases = torch.cat([layer.bias for layer in layers.values()])
            fused.bias = nn.Parameter(biases, requires_grad=False)
        for layer in layers.values():
            del layer.weight, layer.bias
        return fused


class Span(NamedTuple):
    """Neighboring ranks of a stacked update.

    Attributes:
        first: The first rank.
        last: One past the last rank.
        mask: [N, last - first] bool, which token uses which rank.
    """

    first: int
    last: int
    mask: Tensor


class VariantRouter:
    """Which variant each packed token runs through; shared by all linear layers of one model."""

    def __init__(self) -> None:
        self._variants: Tensor | None = None
        self._adapters: list[int] = []
        self._spans: dict[tuple[tuple[int, ...], bool], list[Span]] = {}

    def route(self, variants: Tensor, active: Sequence[int]) -> None:
        """Set the variants of the next forward.

        Args:
            variants: [N] int64; 0 is the plain model, i the i-th adapter.
            active: The distinct variants among them.
        """
        self._adapters = sorted(variant - 1 for variant in active if variant)
        self._variants = variants
        self._spans.clear()

    def spans(self, ranks: tuple[int, ...], owner: Tensor, *, apart: bool) -> list[Span]:
        """The parts of a stacked update that this forward needs; none where no token uses any.

        Args:
            ranks: Rank of each adapter in this layer (0 where it has none).
            owner: [sum(ranks)] int64, the variant that each stacked rank belongs to.
            apart: One span for each adapter, instead of one from the first to the last.
        """
        if (ranks, apart) not in self._spans:
            edges = self._adapters if apart else self._adapters[:1]
            last = [i + 1 for i in self._adapters] if apart else [self._adapters[-1] + 1 for _ in edges]
            bounds = [(sum(ranks[:a]), sum(ranks[:b])) for a, b in zip(edges, last, strict=True)]
            self._spans[ranks, apart] = [self._span(a, b, owner) for a, b in bounds if a < b]
        return self._spans[ranks, apart]

    def _span(self, first: int, last: int, owner: Tensor) -> Span:
        assert self._variants is not None  # noqa: S101  (route() comes first)
        return Span(first, last, self._variants[:, None] == owner[None, first:last])


class StackedLinear(nn.Module):
    """A linear layer with the low-rank updates of all adapters stacked along their rank.

    All rows go through one weight; the updates of all active adapters are one pair of products, masked so
    that every token sees only its own adapter. Rows may come in any order and adapters may have any rank.
    Where weights are prepacked, the adapters' are too, and each active adapter is a pair of its own: a launch
    costs a CPU nothing, and a slice of a packed stack cannot be had.
    """

    weight: Tensor
    down: Tensor
    up: Tensor
    owner: Tensor

    def __init__(
        self, linear: nn.Linear, updates: Sequence[LoraUpdate | None], router: VariantRouter
    ) -> None:
        super().__init__()
        self._apart = prepackable(linear.weight)
        if self._apart:
            self.register_buffer("weight", prepack(linear.weight))
            # A compiler cannot look into packed weights.
            self.forward = torch.compiler.disable(self.forward)  # type: ignore[method-assign, no-untyped-call]
        else:
            self.weight = linear.weight
        self.bias = linear.bias
        self._router = router
        self._ranks = tuple(update.down.shape[0] if update else 0 for update in updates)
        present = [update for update in updates if update]
        if not present:
            return
        owner = [i + 1 for i, rank in enumerate(self._ranks) for _ in range(rank)]
        self.register_buffer("owner", torch.tensor(owner, device=linear.weight.device))
        if self._apart:
            firsts = accumulate((update.down.shape[0] for update in present), initial=0)
            for first, update in zip(firsts, present, strict=False):
                self.register_buffer(f"down{first}", prepack(update.down))
                self.register_buffer(f"up{first}", prepack(update.up))
        else:
            self.register_buffer("down", torch.cat([u.down for u in present], 0))
            self.register_buffer("up", torch.cat([u.up for u in present], 1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]; the leading dimensions are the packed tokens."""
        flat = x.reshape(-1, x.shape[-1])
        y = product(flat, self.weight, self.bias)
        if any(self._ranks):
            for span in self._router.spans(self._ranks, self.owner, apart=self._apart):
                down, up = self._factors(span)
                y = product(product(flat, down) * span.mask, up, y)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _factors(self, span: Span) -> tuple[Tensor, Tensor]:
        if self._apart:
            return getattr(self, f"down{span.first}"), getattr(self, f"up{span.first}")
        return self.down[span.first : span.last], self.up[:, span.first : span.last]


def stack_adapters(module: nn.Module, adapters: Sequence[LoraAdapter], router: VariantRouter) -> None:
    """Replace the linear layers of `module` by stacked ones, in place.

    Adapters name the layers as they were before some were fused. Layers that no adapter touches are replaced
    only where that makes them faster (float32 on a CPU).

    Raises:
        KeyError: An adapter names a layer that the module has not, or one that is not a plain linear layer.
    """
    layers = {name: m for name, m in module.named_modules() if type(m) in {nn.Linear, FusedLinear}}
    parts = {name: _parts(name, layer) for name, layer in layers.items()}
    known = {part for names in parts.values() for part in names}
    for adapter in adapters:
        for name in adapter.updates:
            if name not in known:
                raise KeyError(name)
    for name, layer in layers.items():
        updates = [_joined(adapter, parts[name]) for adapter in adapters]
        if any(updates) or prepackable(layer.weight):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, StackedLinear(layer, updates, router))


def _parts(name: str, layer: nn.Linear) -> dict[str, int]:
    """Full names and sizes of the layers that a layer stands for."""
    if not isinstance(layer, FusedLinear):
        return {name: layer.out_features}
    parent = name.rpartition(".")[0]
    return {f"{parent}.{part}": size for part, size in layer.parts.items()}


def _joined(adapter: LoraAdapter, parts: Mapping[str, int]) -> LoraUpdate | None:
    """An adapter's updates of the parts of one layer as one update, whose ranks are theirs together."""
    updates = [(size, adapter.updates.get(name)) for name, size in parts.items()]
    present = [update for _, update in updates if update]
    if len(parts) == 1 or not present:
        return present[0] if present else None
    blocks = [update.up if update else present[0].up.new_zeros(size, 0) for size, update in updates]
    return LoraUpdate(torch.cat([update.down for update in present]), torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
