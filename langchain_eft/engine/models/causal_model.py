"""The models of a recipe: run over packed rows, and checked against their own forward pass before use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.linear import VariantRouter, product, stack_adapters
from langchain_eft.engine.models.lora import LoraAdapter

if TYPE_CHECKING:
    pass


logger = logging.getLogger(__name__)


class CausalModel:
    """One set of weights with its adapters, run over packed rows.

    Attributes:
        name: Where the weights come from.
        module: The transformers model.
        variants: 1 + number of adapters.
        router: Tells the linear layers which adapter each token uses.
        device: Where its inputs are expected, and where its outputs are.
        head: [V, hidden] output matrix, where the logits are a plain product with it; else None.
        compiled: A faster `body` for passes whose outputs are all wanted, or None.
        bytes_per_token: KV memory of one token of one variant, on each device.
    """

    def __init__(self, name: str, module: nn.Module, adapters: Sequence[LoraAdapter]) -> None:
        self.name = name
        self.module = module
        self.variants = 1 + len(adapters)
        self.head: Tensor | None = None
        self.compiled: Callable[..., Any] | None = None
        self.bytes_per_token: dict[torch.device, int] = {}
        self.router = VariantRouter()
        self.device = next(module.parameters()).device
        self._add(adapters)

    def _add(self, adapters: Sequence[LoraAdapter]) -> None:
        try:
            stack_adapters(self.module, adapters, self.router)
        except KeyError as error:
            raise RecipeError(
                f"An adapter updates the layer {error.args[0]!r}, which is not a linear layer of "
                f"{self.name!r}: use the adapter with the model that it was trained on."
            ) from error

    @torch.inference_mode()
    def __call__(
        self, batch: ForwardBatch, active: Sequence[int], keep: Tensor | None = None, **extras: Any
    ) -> Tensor:
        """Run packed rows.

        Args:
            batch: N packed tokens.
            active: The distinct variants in the batch.
            keep: [n] int64, packed positions whose outputs are wanted; None for all.
            **extras: Further keywords of the attention function.

        Returns:
            [n, hidden] last hidden states if the model has a plain `head`, else [n, V] logits.
        """
        self.router.route(batch.variants, active)
        inputs = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "use_cache": False,
            "eft": batch,
            **extras,
        }
        body = self.body if self.compiled is None or keep is not None else self.compiled
        if self.head is not None:
            hidden: Tensor = body(**inputs).last_hidden_state
            return hidden[0] if keep is None else hidden[0, keep]
        logits: Tensor = body(**inputs, logits_to_keep=0 if keep is None else keep).logits
        return logits[0]

    @property
    def body(self) -> Any:
        """What runs: the module without its head, where that is a plain product, or all of it."""
        return self.module if self.head is None else self.module.base_model


def project(hidden: Sequence[tuple[Tensor | None, Tensor]], size: int, device: torch.device) -> Tensor:
    """Multiply by the output matrices, one product for all neighbors that share theirs.

    Args:
        hidden: Each model's head and its [n, hidden] states, or None and its [n, V] logits.
        size: Number of token ids that are wanted.
        device: Where the logits are wanted.

    Returns:
        [N, size] float32 logits of all models, one after the other.
    """
    logits: list[Tensor] = []
    shared: list[Tensor] = []
    for i, (head, states) in enumerate(hidden):
        following = hidden[i + 1][0] if i + 1 < len(hidden) else None
        if head is None:
            logits.append(states[:, :size].float())
            continue
        shared.append(states)
        if following is not head:
            logits.append(product(joined(shared), head)[:, :size].float())
            shared.clear()
    return joined([part.to(device) for part in logits])


def joined(tensors: list[Tensor]) -> Tensor:
    """Tensors one after the other; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
