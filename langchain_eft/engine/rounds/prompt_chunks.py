"""What rows have still to compute of their prompts: which tokens each term runs, and in which pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.models.activation import shares
from langchain_eft.engine.models.batch import Chunk
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.rounds.shared import Shared
from langchain_eft.engine.scheduling.scheduler import ScheduledRow


class TermChunk(NamedTuple):
    """Tokens that a term has to run in a row.

    Attributes:
        chunk: The tokens.
        row: The row.
        term: The term.
        continues: Whether it reads keys and values that another chunk of the round stores.
    """

    chunk: Chunk
    row: ScheduledRow
    term: Term
    continues: bool


def chunk_passes(
    rows: Sequence[ScheduledRow], model: int, shared: Shared, *, apart: bool
) -> Iterator[list[TermChunk]]:
    """What a model has to run, pass by pass.

    Args:
        rows: The rows.
        model: Number of the model.
        shared: What all rounds share.
        apart: Whether chunks that continue others need a pass of their own: a GPU's kernel stores and reads
            keys in one launch. Elsewhere a pass stores all keys before it reads any.
    """
    chunks = [chunk for row in rows for chunk in _chunks(row, model, shared)]
    passes = [[c for c in chunks if c.continues == later] for later in (False, True)] if apart else [chunks]
    return filter(None, passes)


def _chunks(row: ScheduledRow, model: int, shared: Shared) -> Iterator[TermChunk]:
    """What one model has to run in a row."""
    terms = [term for term in terms_in_order(row.state.formula) if term.model == model]
    for term, first, end in shares(terms, shared.block_size):
        prompt, count = row.state.prompts[term.prompt_name], row.counts[term.prompt_name]
        start = max(prompt.first_to_run, first)
        known = prompt.num_computed_tokens + count
        tokens = prompt.tokens[start : known if end is None else min(known, end)]
        if count and tokens:
            shift, own = term.variant * shared.num_blocks, first // shared.block_size
            blocks = [*prompt.block_table[:own], *(block + shift for block in prompt.block_table[own:])]
            slot = shared.state_slot(prompt, term.variant)
            chunk = Chunk(tokens, start, term.variant, blocks, slot, term.begin)
            yield TermChunk(chunk, row, term, continues=prompt.first_to_run < first)
