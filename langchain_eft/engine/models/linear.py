"""Linear layers for packed tokens: all variants share one weight, and each token has its own adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import lossless
from langchain_eft.engine.models.lora import LoraAdapter, LoraUpdate
from langchain_eft.engine.models.packed_weight import PackedWeight


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, by the fastest kernel for the weight and the bias.

    Args:
        x: [N, in].
        weight: [out, in], plain or packed.
        bias: [out] or [N, out], or None.

    Returns:
        [N, out].
    """
    if isinstance(weight, PackedWeight):
        y = weight.product(x)
        return y if bias is None else y.add_(bias)
    if bias is not None and bias.dim() == 2:
        return torch.addmm(bias, x, weight.t())
    return F.linear(x, weight, bias)


class FusedLinear(nn.Linear):
    """Several linear layers with the same input, fused into one."""

    parts: dict[str, int]  # name and number of outputs of each original layer, in order

    @classmethod
    def join(cls, layers: Mapping[str, nn.Linear]) -> Self:
        """Concatenate the outputs of layers. Either all layers have a bias, or none has.

        The layers lose their weights, so that these are not in memory twice.
        """
        first = next(iter(layers.values()))
        sizes = {name: layer.out_features for name, layer in layers.items()}
        fused = cls(first.in_features, sum(sizes.values()), first.bias is not None, device="meta")
        fused.parts = sizes
        weights = [layer.weight for layer in layers.values()]
        if isinstance(first.weight, PackedWeight):
            del fused.weight
            fused.register_buffer("weight", PackedWeight.join(weights))
        else:
            fused.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
        if first.bias is not None:
            biases = torch.cat([layer.bias for layer in layers.values()])
            fused.bias = nn.Parameter(biases, requires_grad=False)
        for layer in layers.values():
            del layer.weight, layer.bias
        return fused


class Span(NamedTuple):
    """A range of ranks of a stacked update."""

    first: int
    last: int  # the last rank + 1
    mask: Tensor  # [N, last - first] bool, True where a token uses a rank


class VariantRouter:
    """The variant of each packed token. All linear layers of a model share one router."""

    def __init__(self) -> None:
        self._variants: Tensor | None = None
        self._adapters: list[int] = []
        self._spans: dict[tuple[tuple[int, ...], bool], list[Span]] = {}

    def route(self, variants: Tensor, active: Sequence[int]) -> None:
        """Set the variants of the next forward pass.

        Args:
            variants: [N] int64; 0 is the plain model, i the i-th adapter.
            active: The distinct values in `variants`.
        """
        self._adapters = sorted(variant - 1 for variant in active if variant)
        self._variants = variants
        self._spans.clear()

    def spans(self, ranks: tuple[int, ...], owner: Tensor, *, apart: bool) -> list[Span]:
        """The ranges of a stacked update that this forward pass needs; empty if no token uses the update.

        Args:
            ranks: Rank of each adapter in this layer; 0 if the adapter does not update it.
            owner: [sum(ranks)] int64, the variant of each stacked rank.
            apart: Whether to return one span for each adapter, instead of one from the first to the last.
        """
        if (ranks, apart) not in self._spans:
            starts = self._adapters if apart else self._adapters[:1]
            ends = [i + 1 for i in self._adapters] if apart else [self._adapters[-1] + 1 for _ in starts]
            bounds = [(sum(ranks[:a]), sum(ranks[:b])) for a, b in zip(starts, ends, strict=True)]
            self._spans[ranks, apart] = [self._span(a, b, owner) for a, b in bounds if a < b]
        return self._spans[ranks, apart]

    def _span(self, first: int, last: int, owner: Tensor) -> Span:
        assert self._variants is not None  # noqa: S101  (route() was called before)
        return Span(first, last, self._variants[:, None] == owner[None, first:last])


class StackedLinear(nn.Module):
    """A linear layer with the low-rank updates of all adapters stacked along their rank.

    All tokens share one weight. The updates of all active adapters are one pair of products, masked so that
    each token uses only its own adapter. Tokens may be in any order, and adapters may have any rank. If the
    weight is packed, the adapters are too, and each active adapter is a separate pair of products: a packed
    tensor cannot be sliced, and a further product has almost no overhead on a CPU.

    Attributes:
        apart: Whether the weight is packed.
    """

    weight: Tensor
    down: Tensor
    up: Tensor
    owner: Tensor

    def __init__(
        self,
        linear: nn.Linear,
        updates: Sequence[LoraUpdate | None],
        router: VariantRouter,
        arena: Arena,
    ) -> None:
        super().__init__()
        self.apart = isinstance(linear.weight, PackedWeight)
        if self.apart:
            self.register_buffer("weight", linear.weight)
        else:
            self.weight = linear.weight
        self.bias = linear.bias
        self._router = router
        self._ranks = tuple(update.down.shape[0] if update else 0 for update in updates)
        present = [update for update in updates if update]
        self._adapted = bool(present)
        if not present:
            return
        owner = [i + 1 for i, rank in enumerate(self._ranks) for _ in range(rank)]
        self.register_buffer("owner", torch.tensor(owner, device=linear.weight.device))
        if self.apart:
            firsts = accumulate((update.down.shape[0] for update in present), initial=0)
            for first, update in zip(firsts, present, strict=False):
                for name, factor in (("down", update.down), ("up", update.up)):
                    packed = lossless(factor).pack(factor, arena)
                    self.register_buffer(f"{name}{first}", PackedWeight.of(packed))
        else:
            self.register_buffer("down", torch.cat([u.down for u in present], 0))
            self.register_buffer("up", torch.cat([u.up for u in present], 1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]. The leading dimensions are the packed tokens."""
        flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        y = product(flat, self.weight, self.bias)
        if self._adapted:
            for span in self._router.spans(self._ranks, self.owner, apart=self.apart):
                down, up = self._factors(span)
                y = product(product(flat, down) * span.mask, up, y)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])

    def updates(self) -> list[tuple[int, PackedWeight, PackedWeight]]:
        """The variant and the packed factors of each update, if the weight is packed."""
        firsts = accumulate(self._ranks, initial=0)
        return [
            (variant, getattr(self, f"down{first}"), getattr(self, f"up{first}"))
            for variant, (first, rank) in enumerate(zip(firsts, self._ranks, strict=False), 1)
            if rank
        ]

    def _factors(self, span: Span) -> tuple[Tensor, Tensor]:
        if self.apart:
            return getattr(self, f"down{span.first}"), getattr(self, f"up{span.first}")
        return self.down[span.first : span.last], self.up[:, span.first : span.last]


def linear_shapes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Numbers of outputs and inputs of every plain linear layer, by its name before fusion."""
    return {
        part: (size, layer.in_features)
        for name, layer in _linear_layers(module).items()
        for part, size in _parts(name, layer).items()
    }


def _linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in module.named_modules() if type(layer) in {nn.Linear, FusedLinear}}


def stack_adapters(module: nn.Module, adapters: Sequence[LoraAdapter], router: VariantRouter) -> None:
    """Replace linear layers of `module` by stacked ones, in place.

    Adapters use the names of the layers before fusion, and must fit their shapes. A layer without an update
    is replaced only if that makes it faster (on a CPU).
    """
    arena = Arena()
    for name, layer in _linear_layers(module).items():
        updates = [_joined(adapter, _parts(name, layer)) for adapter in adapters]
        if any(updates) or isinstance(layer.weight, PackedWeight):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, StackedLinear(layer, updates, router, arena))


def _parts(name: str, layer: nn.Linear) -> dict[str, int]:
    """Full names and numbers of outputs of the original layers of a possibly fused layer."""
    if not isinstance(layer, FusedLinear):
        return {name: layer.out_features}
    parent = name.rpartition(".")[0]
    return {f"{parent}.{part}": size for part, size in layer.parts.items()}


def _joined(adapter: LoraAdapter, parts: Mapping[str, int]) -> LoraUpdate | None:
    """An adapter's updates of the parts of one layer as one update. Its rank is the sum of their ranks."""
    updates = [(size, adapter.updates.get(name)) for name, size in parts.items()]
    present = [update for _, update in updates if update]
    if len(parts) == 1 or not present:
        return present[0] if present else None
    blocks = [update.up if update else present[0].up.new_zeros(size, 0) for size, update in updates]
    return LoraUpdate(torch.cat([update.down for update in present]), torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
