"""Forward passes over trees of tokens: every token runs once, whatever number of texts begins with it.

A recurrent layer has no state in the midst of a text. So models with such layers run each text as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from langchain_eft.engine.analysis.prefix_tree import PrefixTree, Run
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.sdpa import padded_length
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.recurrence.state_pool import StatePool

_TOKENS_PER_FORWARD = 2048
"""Most tokens of one forward pass."""

_KEYS_PER_FORWARD = 65536
"""Most keys that the rows of one forward pass attend to together; it bounds the memory of gathered keys."""


@dataclass(frozen=True)
class TreeMemory:
    """Memory for the keys and values of trees."""

    pools: Sequence[KVPool]  # of each model of the family
    block_size: int
    stride: int  # blocks from one variant of a model to the next one


@dataclass(frozen=True)
class ReadTree:
    """A tree that a variant of a model reads."""

    tree: PrefixTree
    blocks: Sequence[int]  # blocks that hold its tokens, in the order of their numbers
    num_cached: int  # tokens, from number 0 on, whose keys and values are there already
    kept: Collection[int]  # numbers of the tokens whose outputs are wanted

    def slots(self, memory: TreeMemory, variant: int) -> np.ndarray:
        """[tokens] int64, the slot of each token for a variant."""
        blocks = np.array(self.blocks, np.int64)[:, None] + variant * memory.stride
        return (blocks * memory.block_size + np.arange(memory.block_size)).reshape(-1)


@dataclass(frozen=True)
class _Piece:
    """Tokens of a run that one forward pass computes."""

    chunk: Chunk  # they, with the slots of their text
    depth: int  # runs before them
    kept: list[int]  # which of them have outputs that are wanted
    numbers: list[int]  # the numbers of those


def tree_outputs(
    model: CausalModel, index: int, memory: TreeMemory, trees: Mapping[int, ReadTree]
) -> Generator[None, None, dict[int, dict[int, Tensor]]]:
    """Run variants of a model over trees; it yields after every forward pass.

    Returns:
        For each variant the outputs of the wanted tokens, by their numbers: [hidden] if the model's head is a
        plain matrix, else [V'], on the model's device.
    """
    outputs: dict[int, dict[int, Tensor]] = {variant: {} for variant in trees}
    pieces_of = _whole_texts if model.states else _pieces
    pieces = [piece for variant, read in trees.items() for piece in pieces_of(variant, read, memory)]
    for batch in _batches(pieces, one_depth=has_kernel(model.device)):
        rows = _forward(model, memory.pools[index], batch)
        wanted = [(piece.chunk.variant, number) for piece in batch for number in piece.numbers]
        for (variant, number), row in zip(wanted, rows, strict=True):
            outputs[variant][number] = row
        yield
    return outputs


@torch.inference_mode()
def _forward(model: CausalModel, pool: KVPool, pieces: Sequence[_Piece]) -> Tensor:
    """[n, ...] outputs of the wanted tokens.

    Raises:
        DecodingError: Some of them are NaN.
    """
    chunks = [replace(piece.chunk, slot=slot) for slot, piece in enumerate(pieces)]
    batch = pack(chunks, pool, 1, model.device, StatePool(len(pieces)) if model.states else None)
    starts = np.cumsum([0, *(len(piece.chunk.tokens) for piece in pieces)])
    keep = [int(start) + i for start, piece in zip(starts, pieces, strict=False) for i in piece.kept]
    active = sorted({piece.chunk.variant for piece in pieces})
    outputs = model(batch, active, torch.tensor(keep, dtype=torch.int64).to(model.device))
    if outputs.isnan().any():
        raise DecodingError(
            f"The outputs of {model.name!r} are NaN: check these weights, or use dtype='float32' if their "
            "activations overflow.",
            is_retryable=False,
        )
    return outputs


def _pieces(variant: int, read: ReadTree, memory: TreeMemory) -> Iterator[_Piece]:
    """What has to run, in the order of the tree."""
    slots, kept = read.slots(memory, variant), set(read.kept)
    for run in read.tree.runs:
        yield from _pieces_of_run(run, variant, slots, kept, read.num_cached)


def _whole_texts(variant: int, read: ReadTree, memory: TreeMemory) -> Iterator[_Piece]:
    """The text of each run with wanted tokens, from its beginning."""
    slots, kept = read.slots(memory, variant), set(read.kept)
    tokens = list(chain.from_iterable(run.tokens for run in read.tree.runs))
    for run in read.tree.runs:
        wanted = [number for number in run.path[-1] if number in kept]
        if wanted:
            numbers = list(chain.from_iterable(run.path))
            table = slots[np.array(numbers)].tolist()
            text = Chunk([tokens[number] for number in numbers], 0, variant, table)
            first = run.path[-1].start - run.position
            yield _Piece(text, 0, [number - first for number in wanted], wanted)


def _pieces_of_run(
    run: Run, variant: int, slots: np.ndarray, kept: Collection[int], num_cached: int
) -> Iterator[_Piece]:
    own = run.path[-1]
    skip = max(num_cached - own.start, 0)
    table = slots[np.fromiter(chain.from_iterable(run.path), np.int64)].tolist()
    for start in range(skip, len(own), _TOKENS_PER_FORWARD):
        numbers = own[start : start + _TOKENS_PER_FORWARD]
        tokens = run.tokens[start : start + _TOKENS_PER_FORWARD]
        position = run.position + start
        wanted = [i for i, number in enumerate(numbers) if number in kept]
        chunk = Chunk(tokens, position, variant, table[: position + len(tokens)])
        yield _Piece(chunk, run.depth, wanted, [numbers[i] for i in wanted])


def _batches(pieces: Sequence[_Piece], *, one_depth: bool) -> Iterator[list[_Piece]]:
    """Divide pieces into forward passes; every piece comes after what its text begins with.

    Args:
        pieces: In the order of their trees.
        one_depth: Whether a pass has pieces of one depth only. The kernel stores and reads keys in one
            launch, so its rows do not see one another; elsewhere a pass stores all keys before it reads any.
    """
    ordered = sorted(pieces, key=lambda piece: piece.depth) if one_depth else pieces
    batch: list[_Piece] = []
    tokens = keys = 0
    for piece in ordered:
        more_tokens = len(piece.chunk.tokens)
        more_keys = padded_length(piece.chunk.position + more_tokens)
        full = tokens + more_tokens > _TOKENS_PER_FORWARD or keys + more_keys > _KEYS_PER_FORWARD
        if batch and (full or (one_depth and piece.depth != batch[0].depth)):
            yield batch
            batch, tokens, keys = [], 0, 0
        batch.append(piece)
        tokens, keys = tokens + more_tokens, keys + more_keys
    if batch:
        yield batch
