"""Forward passes over trees of tokens: every token runs once, whatever number of texts begins with it.

A recurrent layer has no state in the midst of a text. So models with such layers run each text as a whole.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from langchain_eft.engine.analysis.text_tree import TextTree
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.sdpa import padded_length
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.models.activation import Share, shares
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.recurrence.state_pool import StatePool
from langchain_eft.engine.scheduling.block_manager import BlockManager

_TOKENS_PER_FORWARD = 2048
"""Most tokens of one forward pass."""

_KEYS_PER_FORWARD = 65536
"""Most keys that the rows of one forward pass attend to together; it bounds the memory of gathered keys."""


@dataclass(frozen=True)
class _Piece:
    """Tokens of a run that one forward pass computes."""

    chunk: Chunk  # they, with the slots of their text
    depth: int  # runs before them, and one more where a term continues what another has run
    kept: dict[int, int]  # of those whose outputs are wanted, the number in the tree and the place among them


def tree_outputs(
    model: CausalModel, pool: KVPool, blocks: BlockManager, trees: Mapping[Term, TextTree]
) -> Generator[None, None, dict[tuple[int, int, int], Tensor]]:
    """Run variants of a model over trees; it yields after every forward pass.

    Args:
        model: The model.
        pool: Its KV memory.
        blocks: The blocks in there.
        trees: By term of the model, what it reads.

    Returns:
        The wanted outputs, by variant, where its adapter begins to act, and number of the token: [hidden] if
        the model's head is a plain matrix, else [V'], on the model's device.
    """
    outputs: dict[tuple[int, int, int], Tensor] = {}
    read_by: dict[TextTree, list[Term]] = {}
    for reader, tree in trees.items():
        read_by.setdefault(tree, []).append(reader)
    pieces_of = _whole_texts if model.states else _pieces
    pieces = [
        piece
        for tree, readers in read_by.items()
        for share in shares(readers, blocks.block_size)
        for piece in pieces_of(tree, share, blocks)
    ]
    for batch in _batches(pieces, one_depth=has_kernel(model.device)):
        outputs |= _forward(model, pool, batch)
        yield
    return outputs


@torch.inference_mode()
def _forward(
    model: CausalModel, pool: KVPool, pieces: Sequence[_Piece]
) -> dict[tuple[int, int, int], Tensor]:
    """The wanted outputs of one forward pass.

    Raises:
        DecodingError: Some of them are NaN.
    """
    kept: dict[tuple[int, int, int], int] = {}
    start = 0
    for piece in pieces:
        reader = piece.chunk.variant, piece.chunk.begin
        kept |= {(*reader, number): start + place for number, place in piece.kept.items()}
        start += len(piece.chunk.tokens)
    chunks = [replace(piece.chunk, slot=slot) for slot, piece in enumerate(pieces)]
    batch = pack(chunks, pool, 1, model.device, StatePool(len(pieces)) if model.states else None)
    active = sorted({piece.chunk.variant for piece in pieces})
    outputs = model(batch, active, torch.tensor([*kept.values()], dtype=torch.int64).to(model.device))
    if outputs.isnan().any():
        raise DecodingError(
            f"The outputs of {model.name!r} are NaN: check these weights, or use dtype='float32' if their "
            "activations overflow.",
            is_retryable=False,
        )
    return dict(zip(kept, outputs, strict=True))


def _pieces(tree: TextTree, share: Share, blocks: BlockManager) -> Iterator[_Piece]:
    """What a term has to run, in the order of the tree."""
    slots, term = _slots(tree, share, blocks), share.term
    for run in tree.tokens.runs:
        own = run.path[-1]
        path = slots[np.fromiter(chain.from_iterable(run.path), np.int64)].tolist()
        first = max(tree.prompt.num_computed_tokens - own.start, share.first - own.start, 0)
        last = len(own) if share.end is None else min(len(own), share.end - own.start)
        for start in range(first, last, _TOKENS_PER_FORWARD):
            part = slice(start, min(start + _TOKENS_PER_FORWARD, last))
            tokens, position = run.tokens[part], run.position + start
            chunk = Chunk(tokens, position, term.variant, path[: position + len(tokens)], begin=term.begin)
            kept = {number: place for place, number in enumerate(own[part]) if number in tree.wanted}
            yield _Piece(chunk, run.depth + (share.first > 0), kept)


def _whole_texts(tree: TextTree, share: Share, blocks: BlockManager) -> Iterator[_Piece]:
    """The text of each run with wanted tokens, from its beginning."""
    slots, variant = _slots(tree, share, blocks), share.term.variant
    tokens = list(chain.from_iterable(run.tokens for run in tree.tokens.runs))
    for run in tree.tokens.runs:
        places = {number: run.position + place for place, number in enumerate(run.path[-1])}
        kept = {number: place for number, place in places.items() if number in tree.wanted}
        if kept:
            numbers = list(chain.from_iterable(run.path))
            table = slots[np.array(numbers)].tolist()
            yield _Piece(Chunk([tokens[number] for number in numbers], 0, variant, table), 0, kept)


def _slots(tree: TextTree, share: Share, blocks: BlockManager) -> np.ndarray:
    """[tokens] int64, where the keys and values of each token are that a term reads."""
    table = np.array(tree.prompt.block_table, np.int64)
    table[share.first // blocks.block_size :] += share.term.variant * blocks.num_blocks
    return (table[:, None] * blocks.block_size + np.arange(blocks.block_size)).reshape(-1)


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
