"""The models of a recipe: run over packed rows, and checked against their own forward pass before use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.adapters import LoraAdapter
from langchain_eft.engine.attention import ATTENTION, ForwardBatch, Row, has_kernel, page
from langchain_eft.engine.compatibility import (
    PROBE,
    LayerCall,
    reason_against_layers,
)
from langchain_eft.engine.errors import RecipeError, UnsupportedModelError
from langchain_eft.engine.kv_cache import KVPool
from langchain_eft.engine.linear import VariantRouter, product, stack_adapters
from langchain_eft.engine.prepacked import prepackable

if TYPE_CHECKING:
    from langchain_eft.engine.tensor_parallel import Leader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Term:
    """One summand of the formula: a variant of one of the recipe's models, over one of a request's contexts.

    Attributes:
        model: Index into `ModelFamily.models`.
        variant: 0 for the model itself, i for its i-th adapter.
        context: Name of the text that it reads; empty for the request's own prompt.
    """

    model: int
    variant: int = 0
    context: str = ""


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

    def close(self) -> None:
        """Let go of the weights."""
        drop_weights(self.module)
        self.head = self.compiled = None

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


def drop_weights(module: nn.Module) -> None:
    """Take all parameters and buffers out of a module.

    The module itself may live longer than its model: the traceback of an error refers to it, for one.
    """
    for part in module.modules():
        tensors = [
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, _ in tensors:
            delattr(part, name)


@dataclass(frozen=True)
class ModelFamily:
    """Everything that a recipe loads.

    Attributes:
        models: Distinct sets of weights.
        base: The term of the large model.
        behaviors: Terms (tuned, reference) of each behaviour.
        tokenizer: The base's tokenizer, with the recipe's chat template.
        vocabulary: [V] bool, ids that mean the same token everywhere.
        unscaled: [V] bool, ids that follow the small mixture alone, or None where there are none.
        end_ids: Tokens that end an answer.
        window: Longest sequence that every model can hold.
        weight_bytes: Memory of all weights, shared tensors counted once.
        sizes: Bytes of weights that a pass over each of the models reads.
        leader: Of the processes that share the base, where several do.
    """

    models: tuple[CausalModel, ...]
    base: Term
    behaviors: dict[str, tuple[Term, Term]]
    tokenizer: Any
    vocabulary: Tensor
    unscaled: Tensor | None
    end_ids: frozenset[int]
    window: int
    weight_bytes: int
    sizes: tuple[int, ...]
    leader: Leader | None

    def close(self) -> None:
        """Let go of the weights, and stop the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()
        for model in self.models:
            model.close()

    def bytes_read(self, terms: Iterable[Term]) -> int:
        """Bytes of weights that one pass over `terms` reads; each model is read once."""
        return sum(self.sizes[model] for model in {term.model for term in terms})


@dataclass(frozen=True)
class Chunk:
    """New tokens of one sequence for one variant.

    Attributes:
        tokens: Token ids.
        position: Position of the first of them.
        variant: Which variant they run through.
        blocks: The sequence's block table, shifted to the variant.
    """

    tokens: Sequence[int]
    position: int
    variant: int
    blocks: Sequence[int]


def pack(chunks: Sequence[Chunk], pool: KVPool, block_size: int, device: torch.device) -> ForwardBatch:
    """Lay chunks one after the other.

    Args:
        chunks: One for each row.
        pool: The model's KV memory.
        block_size: Positions per block.
        device: Where the batch goes.
    """
    rows: list[Row] = []
    ids: list[int] = []
    positions: list[int] = []
    variants: list[int] = []
    for chunk in chunks:
        end = chunk.position + len(chunk.tokens)
        rows.append(Row(len(ids), len(chunk.tokens), end, chunk.blocks[: -(-end // block_size)]))
        ids.extend(chunk.tokens)
        positions.extend(range(chunk.position, end))
        variants.extend([chunk.variant] * len(chunk.tokens))
    packed = torch.tensor([ids, positions, variants]).to(device)
    return ForwardBatch(
        ids=packed[0:1],
        positions=packed[1:2],
        variants=packed[2],
        pool=pool,
        block_size=block_size,
        rows=rows,
        paged=page(rows, block_size, device) if has_kernel(device) else (),
    )


def project(hidden: Sequence[tuple[Tensor | None, Tensor]], size: int, device: torch.device) -> Tensor:
    """Multiply by the output matrices, one product for all neighbours that share theirs.

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


_TOLERANCE = {torch.float32: 2e-3}
_PROBE = "The quick brown fox jumps over the lazy dog and runs."


@torch.inference_mode()
def prepare(name: str, module: nn.Module, adapters: Sequence[LoraAdapter], tokenizer: Any) -> CausalModel:
    """Make a loaded model ready for decoding, and check that this leaves its logits alone.

    Compares chunked decoding over our KV pool with the model's forward pass as it was loaded, variant 0. Also
    finds out whether the logits are a plain product with the output matrix, and how much KV memory a token
    takes.

    Raises:
        RecipeError: Adapters of another model.
        UnsupportedModelError: The two differ (recurrent state, ALiBi, shared KV and the like).
    """
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False).input_ids[:12]
    with _refusing(name, module):
        expected = plain_logits(module, torch.tensor([ids], device=next(module.parameters()).device))
    if has_kernel(expected.device):
        from langchain_eft.engine.fusion import fuse  # which needs Triton

        fuse(module)
    model = CausalModel(name, module, adapters)
    _leave_file(module)
    with _refusing(name, module):
        _self_check(model, ids, expected)
    return model


@torch.inference_mode(mode=False)  # the copies are ordinary weights
def _leave_file(module: nn.Module) -> None:
    """Copy the weights that are not prepacked out of their file.

    The whole file stays mapped into memory as long as one tensor is a part of it.
    """
    for weight in module.parameters():
        if prepackable(weight):
            weight.data = weight.data.clone()


@contextmanager
def _refusing(name: str, module: Any) -> Iterator[None]:
    try:
        yield
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = f"it cannot be decoded row by row ({type(error).__name__}: {error})"
        raise unsupported(name, module.config.get_text_config(), reason) from error


def _self_check(model: CausalModel, ids: list[int], expected: Tensor) -> None:
    half, pool, device = len(ids) // 2, KVPool(len(ids)), expected.device
    config = text_config(model.module)
    seen: list[LayerCall] = []
    tolerance = _TOLERANCE.get(expected.dtype, 0.1) * float(expected.float().std() + 1)
    model.head = _output_matrix(model.module)
    first = _probe(model, pack([Chunk(ids[:half], 0, 0, [0])], pool, len(ids), device), seen)
    if not _is_head(model.head, first, expected[half - 1], tolerance):
        model.head = None  # soft-capped, scaled, biased or projected: the model makes its own logits
    last = _last_output(model, pack([Chunk(ids[half:], half, 0, [0])], pool, len(ids), device))
    reason = reason_against_layers(config, seen)
    if reason:
        raise unsupported(model.name, config, reason)
    if not _agree(_logits(model, last), expected[-1], tolerance):
        raise unsupported(model.name, config, "its logits differ from those of its own forward pass")
    model.bytes_per_token = pool.bytes_per_slot


def unsupported(name: str, config: Any, reason: str) -> UnsupportedModelError:
    """The error that says why a model cannot be decoded here."""
    return UnsupportedModelError(
        f"{name!r} ({config.model_type}) cannot be decoded here: {reason}. Only models whose attention over "
        "keys and values is all that ties tokens together are supported: choose another model."
    )


def _probe(model: CausalModel, batch: ForwardBatch, seen: list[LayerCall]) -> Tensor:
    """`_last_output`, which also notes what the layers hand over."""
    module: Any = model.module
    module.set_attn_implementation(PROBE)
    try:
        return _last_output(model, batch, seen=seen)
    finally:
        module.set_attn_implementation(ATTENTION)


def own_logits(model: CausalModel, ids: Tensor, variant: int = 0) -> Tensor:
    """Logits of one variant without our attention. Nothing else may run on the model meanwhile.

    Args:
        model: Whose logits.
        ids: [1, T] int64 token ids.
        variant: 0 for the model itself, i for its i-th adapter.

    Returns:
        [T, V].
    """
    model.router.route(torch.full((ids.shape[1],), variant, device=model.device), [variant])
    return plain_logits(model.module, ids.to(model.device)).to(ids.device)


@torch.inference_mode()
def plain_logits(module: Any, ids: Tensor) -> Tensor:
    """Logits by transformers' attention, without cache: [1, T] int64 token ids to [T, V]."""
    module.set_attn_implementation("eager")
    try:
        logits: Tensor = module(input_ids=ids, use_cache=False).logits[0]
    finally:
        module.set_attn_implementation(ATTENTION)
    return logits


def _output_matrix(module: Any) -> Tensor | None:
    head = module.get_output_embeddings()
    # The hooks of layers that are spread over devices or processes would be left out.
    plain = type(head.weight) in {nn.Parameter, Tensor} and not hasattr(head, "_hf_hook")
    return head.weight if plain and getattr(head, "bias", None) is None else None


def _is_head(head: Tensor | None, output: Tensor, expected: Tensor, tolerance: float) -> bool:
    if head is None or head.shape[-1] != output.shape[-1]:
        return False
    return _agree(product(output, head)[0], expected, tolerance)


def _last_output(model: CausalModel, batch: ForwardBatch, **extras: Any) -> Tensor:
    return model(batch, [0], torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device), **extras)


def _logits(model: CausalModel, output: Tensor) -> Tensor:
    return (output if model.head is None else product(output, model.head))[0]


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance)


def text_config(module: Any) -> Any:
    """The part of a model's configuration that is about text."""
    return module.config.get_text_config()
