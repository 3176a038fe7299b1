"""The output heads of all models: weighted sums of their logits.

Under tensor parallelism each process has a slice of every vocabulary. Slices are summed before they are
gathered, so a sum costs one gather, whatever number of models it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import tensor_model_parallel_all_gather
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from langchain_eft.engine.decoding.formula import conservative
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.vllm.table import Factors


class Head:
    """The output head of one model, on this process's slice of the vocabulary.

    Attributes:
        padded_size: Rows of the whole matrix. Heads with as many are sliced alike.
        width: Columns of the matrix.
        linear: Whether a sum of logits is the head of the sum of outputs.
        key: Equal for heads that compute the same.
    """

    def __init__(self, name: str, model: Any) -> None:
        head, processor = getattr(model, "lm_head", None), getattr(model, "logits_processor", None)
        if head is None or processor is None:
            raise UnsupportedModelError(
                f"The model {name!r} ({type(model).__name__}) has its output head in a place that is not "
                "known here: choose another model."
            )
        self._head, self._processor = head, processor
        self._bias = getattr(head, "bias", None)
        plain = isinstance(head.quant_method, UnquantizedEmbeddingMethod | UnquantizedLinearMethod)
        if plain:
            processor.head_dtype = torch.float32  # else logits would be rounded before they are added
        self.padded_size: int = head.num_embeddings_padded
        self.width: int = head.embedding_dim
        self.linear = plain and processor.soft_cap is None and self._bias is None
        self.key = (id(head), processor.scale, processor.soft_cap)

    @property
    def first_id(self) -> int:
        """Id of the first row of this process's slice."""
        start: int = self._head.shard_indices.padded_org_vocab_start_index
        return start

    def __call__(self, output: Tensor) -> Tensor:
        """Logits of this process's slice: [R, H] to [R, V / processes], float32.

        What a sum of outputs, in float32, loses in the type of the matrix has rows of its own.
        """
        if not self.linear or output.dtype == self._head.weight.dtype:
            return self._product(output)
        rounded = output.to(self._head.weight.dtype)
        rest = (output - rounded).to(rounded.dtype)
        most, little = self._product(torch.cat([rounded, rest])).chunk(2)
        return most + little

    def _product(self, output: Tensor) -> Tensor:
        logits: Tensor = self._processor(self._head, output, self._bias, skip_gather=True)
        return logits.float()


class Heads:
    """The heads of all terms.

    Args:
        heads: A head for each term.
        vocabulary: [V] bool, ids that may be generated.
        unscaled: [V] bool, ids that are never up-scaled, or None.
        width: Columns of the logits that vLLM expects, at least V.
    """

    def __init__(
        self, heads: Sequence[Head], vocabulary: Tensor, unscaled: Tensor | None, width: int
    ) -> None:
        self._heads = heads
        self._vocabulary, self._unscaled, self._width = vocabulary, unscaled, width
        self._allowed = {
            head.padded_size: _resized(vocabulary, head.padded_size, fill=False) for head in heads
        }

    def log_p(self, outputs: Sequence[Tensor], factors: Factors) -> Tensor:
        """Log p itself, because a repetition penalty multiplies it.

        Args:
            outputs: [R, H] of each term.
            factors: Of the R rows.

        Returns:
            [R, width] float32, -inf for ids that are never generated.
        """
        if factors.upscale is None or factors.upscale_top_p is None:
            log_p = self._masked(self._sum(outputs, factors.small))
        else:
            small, upscale = self._normalized_sums(outputs, factors.small, factors.upscale)
            log_p = conservative(
                self._masked(small), self._masked(upscale), factors.upscale_top_p, self._unscaled
            )
        return _resized(log_p.log_softmax(-1), self._width, fill=float("-inf"))

    def gathered_logits(self, term: int, output: Tensor) -> Tensor:
        """Logits of one term: [R, H] to [R, V]."""
        head = self._heads[term]
        return self._gathered({head.padded_size: head(output)})

    def _masked(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(~self._vocabulary, float("-inf"))

    def _sum(self, outputs: Sequence[Tensor], factors: Tensor) -> Tensor:
        """[R, V], the sum of logits. Terms that share a linear head share its product."""
        shared: dict[Any, tuple[Head, Tensor]] = {}
        for i, (head, output) in enumerate(zip(self._heads, outputs, strict=True)):
            key = head.key if head.linear else i
            weighted = output.float() * factors[:, i, None] if head.linear else output
            total = shared[key][1] + weighted if key in shared else weighted
            shared[key] = (head, total)
        slices: dict[int, Tensor] = {}
        for key, (head, output) in shared.items():
            logits = head(output)
            if not head.linear:
                logits = logits * factors[:, key, None]
            _add(slices, head.padded_size, logits)
        return self._gathered(slices)

    def _normalized_sums(
        self, outputs: Sequence[Tensor], small: Tensor, upscale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[R, V] twice: the sum of logits by `small`, and the sum of log-probabilities by `upscale`."""
        sums: dict[int, Tensor] = {}
        constant = torch.zeros_like(upscale[:, :1])
        for i, (head, output) in enumerate(zip(self._heads, outputs, strict=True)):
            logits = head(output)
            constant = constant + upscale[:, i, None] * self._log_normalizer(head, logits)
            both = torch.stack([small[:, i, None] * logits, upscale[:, i, None] * logits])
            _add(sums, head.padded_size, both)
        small_sum, upscale_sum = self._gathered(sums)
        return small_sum, upscale_sum - constant

    def _log_normalizer(self, head: Head, logits: Tensor) -> Tensor:
        """[R, 1], over all processes."""
        allowed = self._allowed[head.padded_size][head.first_id : head.first_id + logits.shape[-1]]
        own = logits.masked_fill(~allowed, float("-inf")).logsumexp(-1, keepdim=True)
        everyone: Tensor = tensor_model_parallel_all_gather(own)
        return everyone.logsumexp(-1, keepdim=True)

    def _gathered(self, slices: dict[int, Tensor]) -> Tensor:
        """[..., V], the slices of all processes. Matrices of other sizes are sliced in other places."""
        size = len(self._vocabulary)
        whole = [tensor_model_parallel_all_gather(part)[..., :size] for part in slices.values()]
        return torch.stack(whole).sum(0) if len(whole) > 1 else whole[0]


def _add(sums: dict[int, Tensor], key: int, summand: Tensor) -> None:
    sums[key] = sums[key] + summand if key in sums else summand


def _resized(values: Tensor, size: int, fill: float) -> Tensor:
    """The last dimension cut, or filled up, to `size`."""
    if values.shape[-1] >= size:
        return values[..., :size]
    return nn.functional.pad(values, (0, size - values.shape[-1]), value=fill)
