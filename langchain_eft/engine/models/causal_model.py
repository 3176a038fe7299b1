"""One model of a recipe with its adapters, run over packed tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.attention.batch import ForwardBatch, on_device
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.linear import VariantRouter, linear_shapes, product, stack_adapters
from langchain_eft.engine.models.lora import LoraAdapter
from langchain_eft.engine.models.plan import Plan
from langchain_eft.engine.recurrence.mixers import replace_mixers
from langchain_eft.engine.recurrence.state_pool import StatePool

logger = logging.getLogger(__name__)


class CausalModel:
    """One set of weights with its adapters, run over packed tokens.

    Attributes:
        name: Source of the weights.
        module: The transformers model.
        variants: Number of variants: 1 + the number of adapters.
        negated: The variants whose adapter has a negative scale.
        invocations: By variant, the tokens from whose last occurrence in a prompt its adapter acts; none for
            adapters that act everywhere.
        router: Selects the adapter of each token in the linear layers.
        device: Device of its inputs and outputs.
        head: [V, hidden] output matrix if the logits are a plain product with it, else None.
        plan: The passes without the output layer as one program, for a CPU, or None.
        kv_layers: Empty keys and values of each layer, for their shapes, types and devices.
        bytes_per_token: Bytes of KV memory of one token of one variant, by device.
        recurrent_layers: Numbers of the layers with a recurrent state.
        states: Recurrent states of one sequence, for their sizes; None if there are no such layers.
    """

    def __init__(self, name: str, module: Any, adapters: Sequence[LoraAdapter]) -> None:
        module.config.pad_token_id = None  # GPT-2 would search every pass for padding
        self.name = name
        self.module = module
        self.variants = 1 + len(adapters)
        self.negated = frozenset(i for i, adapter in enumerate(adapters, 1) if adapter.negated)
        self.invocations = {
            i: adapter.invocation for i, adapter in enumerate(adapters, 1) if adapter.invocation
        }
        self.head: Tensor | None = None
        self.plan: Plan | None = None
        self.kv_layers: dict[int, Tensor] = {}
        self.bytes_per_token: dict[torch.device, int] = {}
        self.recurrent_layers = replace_mixers(module)
        self.states = StatePool(1) if self.recurrent_layers else None
        self.router = VariantRouter()
        self.device = module.get_input_embeddings().weight.device  # a packed model may have no parameters
        self._add(adapters)

    def close(self) -> None:
        """Free the weights."""
        drop_weights(self.module)
        self.head = self.plan = None

    def _add(self, adapters: Sequence[LoraAdapter]) -> None:
        shapes = linear_shapes(self.module)
        for adapter in adapters:
            if adapter.invocation and self.states:
                raise RecipeError(
                    f"The adapter {adapter.source!r} is an activated LoRA (alora_invocation_tokens), and "
                    f"{self.name!r} has recurrent layers, whose states are not shared: use a plain LoRA."
                )
            for name, update in adapter.updates.items():
                shape = update.up.shape[0], update.down.shape[1]
                if shapes.get(name) != shape:
                    raise RecipeError(
                        f"The adapter {adapter.source!r} updates a linear layer {name!r} with {shape[1]} "
                        f"inputs and {shape[0]} outputs, but {self.name!r} has no such layer: use the "
                        "adapter with the model that it was trained on."
                    )
        stack_adapters(self.module, adapters, self.router)

    @torch.inference_mode()
    def __call__(
        self, batch: ForwardBatch, active: Sequence[int], keep: Tensor | None = None, **extras: Any
    ) -> Tensor:
        """Run a batch of packed tokens.

        Args:
            batch: N packed tokens.
            active: The distinct variants in the batch.
            keep: [n] int64, packed positions whose outputs are returned; None for all N.
            **extras: Further keyword arguments of the attention function.

        Returns:
            [n, hidden] last hidden states if the model has a `head`, else [n, V] logits.
        """
        if self.plan is not None:
            states = self.plan(batch)  # the next pass changes them
            return states.clone() if keep is None else states[keep]
        self.router.route(batch.variants, active)
        inputs = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "use_cache": False,
            "eft": batch,
            **extras,
        }
        with on_device(self.device):
            if self.head is not None:
                hidden: Tensor = self.body(**inputs).last_hidden_state[0]
                return hidden if keep is None else hidden[keep]
            logits: Tensor = self.body(**inputs, logits_to_keep=0 if keep is None else keep).logits
            return logits[0]

    @property
    def body(self) -> Any:
        """The module to run: without its output layer if the model has a `head`, else all of it."""
        return self.module if self.head is None else self.module.base_model


def drop_weights(module: nn.Module) -> None:
    """Remove all parameters and buffers from a module.

    The module object may outlive its model: the traceback of an error refers to it, for example.
    """
    for part in module.modules():
        tensors = [
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, _ in tensors:
            delattr(part, name)


def project(
    hidden: Sequence[tuple[Tensor | None, Tensor]], size: int, device: torch.device, out: Tensor | None = None
) -> Tensor:
    """Multiply hidden states by the output matrices. Adjacent models with the same matrix share one product.

    Args:
        hidden: Each model's head and its [n, hidden] states, or None and its [n, V] logits.
        size: Number of token ids to return logits for.
        device: Device of the result.
        out: [N, size] float32, contiguous, which takes the result; None for new memory.

    Returns:
        [N, size] float32 logits of all models, concatenated.
    """
    logits: list[Tensor] = []
    pending: list[Tensor] = []  # states whose head is the next model's too
    start = 0
    for i, (head, states) in enumerate(hidden):
        pending.append(states)
        next_head = hidden[i + 1][0] if i + 1 < len(hidden) else None
        if head is None or next_head is not head:
            part = None if out is None else out[start : start + sum(map(len, pending))]
            logits.append(_project(joined(pending), head, size, part))
            start += len(logits[-1])
            pending.clear()
    return joined([part.to(device) for part in logits]) if out is None else out


def _project(states: Tensor, head: Tensor | None, size: int, out: Tensor | None) -> Tensor:
    """`project` of one matrix: [n, size] float32, in `out` if it is given."""
    if head is not None and _multiplies_to_float32(states, head):
        # The sum is not rounded to the type of the weights on its way.
        return torch.mm(states, head[:size].t(), out_dtype=torch.float32, out=out)
    logits = (states if head is None else product(states, head))[:, :size]
    return logits.float() if out is None else out.copy_(logits)


def _multiplies_to_float32(states: Tensor, head: Tensor) -> bool:
    """Whether torch multiplies these numbers of 16 bits to float32: plain tensors on a CUDA device."""
    return (
        states.device.type in {"cuda", "meta"}  # meta tensors show what a CUDA device would do
        and states.device == head.device
        and type(head) in {Tensor, nn.Parameter}  # quantized and distributed weights have other classes
        and states.dtype == head.dtype
        and head.dtype in {torch.bfloat16, torch.float16}
    )


def joined(tensors: list[Tensor]) -> Tensor:
    """Concatenate tensors along the first axis. A single tensor is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
