"""What host and device tell each other in a round: the tensors, and how the host fills and reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.rounds.shape import RoundShape
from langchain_eft.engine.rounds.staging import Fields, PackedTensors
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.request_state import RequestState

_INT, _SMALL, _REAL, _BOOL = torch.int64, torch.int32, torch.float32, torch.bool


def input_fields(shape: RoundShape, vocabulary: int) -> Fields:
    """What the host tells the device each round.

    B rows, K draft tokens, S slots of which D draft, V token ids. All zeros is a round without rows.

    Args:
        shape: The round's.
        vocabulary: V.
    """
    rows, slots, positions = shape.rows, len(shape.slots), shape.positions
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        # Row of the last round that this one continues, plus 1; 0 where `last` and `num_output_tokens` hold.
        "source": ((rows,), _INT),
        "last": ((rows,), _INT),
        "num_output_tokens": ((rows,), _INT),  # `last` included
        "limit": ((rows,), _INT),  # of `num_output_tokens`
        "prompt": ((rows,), _INT),  # tokens before the answer, which the random numbers count too
        "count": ((rows,), _INT),  # draft tokens of each row
        "given": ((rows, shape.num_draft_tokens), _INT),  # draft tokens plus 1; 0 where small models draft
        "used": ((slots, rows), _BOOL),
        "target": ((slots, rows, positions), _REAL),
        "draft": ((slots, rows, positions), _REAL),
        "seed": ((rows,), _INT),
        "greedy": ((rows,), _BOOL),
        "temperature": ((rows,), _REAL),
        "top_k": ((rows,), _INT),
        "top_p": ((rows,), _REAL),
        "min_p": ((rows,), _REAL),
    }
    if shape.conservative:
        fields |= {
            "conservative": ((rows,), _BOOL),
            "small": ((slots, rows, positions), _REAL),
            "upscale": ((slots, rows, positions), _REAL),
            "upscale_top_p": ((rows,), _REAL),
            "unscaled": ((rows,), _BOOL),
        }
    if shape.grammar:
        fields["allowed"] = ((rows, positions, -(-vocabulary // 32)), _SMALL)
    if shape.penalties:
        fields |= {
            "penalized": ((rows,), _BOOL),
            "history": ((rows, shape.max_context), _INT),  # prompt and answer
            "repetition": ((rows,), _REAL),
            "frequency": ((rows,), _REAL),
            "presence": ((rows,), _REAL),
            "biased": ((rows, shape.biases), _INT),
            "bias": ((rows, shape.biases), _REAL),
        }
    return fields


def paging_fields(shape: RoundShape, block_size: int) -> Fields:
    """What the device has to know besides `input_fields` to page keys and values itself.

    Args:
        shape: The round's.
        block_size: Positions per block.
    """
    rows, slots = shape.rows, len(shape.slots)
    return {
        "start": ((slots, rows), _INT),  # tokens before the answer in the term's prompt
        "variant": ((slots, rows), _INT),
        "table": ((slots, rows, -(-shape.max_context // block_size)), _SMALL),
        "base": ((rows,), _INT),  # slot of L
    }


def output_fields(shape: RoundShape) -> Fields:
    """What the device tells the host each round."""
    rows, positions = shape.rows, shape.positions
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "draft_tokens": ((rows, shape.num_draft_tokens), _INT),
        "count": ((rows,), _INT),  # draft tokens made
        "tokens": ((rows, positions), _INT),
        "accepted": ((rows,), _INT),
        "undrawn": ((rows,), _BOOL),  # rows whose log p is not finite, so that no token could be drawn
        "draft_samples": ((rows, positions), _INT),  # -1 where none was drawn
    }
    if shape.logprobs:
        top = (rows, positions, MOST_TOP_LOGPROBS)
        fields |= {
            "logprob": ((rows, positions), _REAL),
            "top_tokens": (top, _INT),
            "top_logprobs": (top, _REAL),
        }
    return fields


def write_rows(
    host: PackedTensors,
    shape: RoundShape,
    drafts: Mapping[RequestState, Draft],
    slots_of_rows: Sequence[Sequence[int]],
    unread: Mapping[RequestState, Draft],
) -> None:
    """Fill in `input_fields`, except what grammars allow.

    Args:
        host: The host's block, all zeros.
        shape: The round's.
        drafts: The rows, and how they draft.
        slots_of_rows: The slot of each of a row's terms.
        unread: Rows of the round before that this one continues, if it has not been read.
    """
    requests = [state.request for state in drafts]
    params = [request.sampling for request in requests]
    earlier = {state: row for row, state in enumerate(unread)}

    def column(name: str, values: list[int] | list[float] | list[bool]) -> None:
        host[name].numpy()[: len(drafts)] = values

    column("source", [earlier.get(state, -1) + 1 for state in drafts])
    column("last", [state.tokens[-1] for state in drafts])
    column("num_output_tokens", [state.num_output_tokens for state in drafts])
    column("limit", [request.max_tokens for request in requests])
    column("prompt", [len(request.prompt_ids) for request in requests])
    column("count", [draft.count for draft in drafts.values()])
    column("seed", [p.seed for p in params])
    column("greedy", [p.temperature == 0 for p in params])
    host["temperature"].fill_(1.0)
    column("temperature", [p.temperature or 1.0 for p in params])
    column("top_k", [p.top_k for p in params])
    host["top_p"].fill_(1.0)
    column("top_p", [p.top_p for p in params])
    column("min_p", [p.min_p for p in params])
    for row, draft in enumerate(drafts.values()):
        if draft.given_tokens:
            host["given"].numpy()[row, : draft.count] = [token + 1 for token in draft.given_tokens]
    for row, (state, slots) in enumerate(zip(drafts, slots_of_rows, strict=True)):
        _write_coefficients(host, shape, row, state, slots)
    if shape.penalties:
        _write_penalties(host, list(drafts))


def write_paging(
    host: PackedTensors,
    states: Sequence[RequestState],
    slots_of_rows: Sequence[Sequence[int]],
    num_blocks: int,
) -> None:
    """Fill in `paging_fields`.

    Args:
        host: The host's block, all zeros.
        states: The rows.
        slots_of_rows: The slot of each of a row's terms.
        num_blocks: Blocks of one variant.
    """
    start, variant, table = (host[name].numpy() for name in ("start", "variant", "table"))
    for row, (state, slots) in enumerate(zip(states, slots_of_rows, strict=True)):
        slot_of = dict(zip(state.formula.terms, slots, strict=True))
        for term, slot in slot_of.items():
            prompt = state.prompts[term.prompt_name]
            start[slot, row] = prompt.num_prompt_tokens
            variant[slot, row] = term.variant
            blocks = np.asarray(prompt.block_table[: table.shape[2]], dtype=np.int32)
            table[slot, row, : len(blocks)] = blocks + term.variant * num_blocks
        host["base"].numpy()[row] = slot_of.get(state.formula.base, slots[0])


def write_allowed(
    host: PackedTensors,
    states: Sequence[RequestState],
    draft_tokens: Sequence[Sequence[int]],
    vocabulary: int,
) -> None:
    """Fill in which tokens the grammars allow after each draft token, as bits.

    Args:
        host: The host's block.
        states: The rows.
        draft_tokens: Of each row.
        vocabulary: V.
    """
    allowed = host["allowed"].numpy()
    allowed[:] = -1
    for row, (state, tokens) in enumerate(zip(states, draft_tokens, strict=True)):
        if state.grammar is None:
            continue
        for step in range(len(tokens) + 1):
            bits = np.zeros(allowed.shape[2] * 32, dtype=np.uint8)
            bits[:vocabulary] = state.grammar.mask(tokens[:step]).numpy()
            allowed[row, step] = np.packbits(bits, bitorder="little").view(np.int32)


def read_outcomes(
    content: PackedTensors, shape: RoundShape, drafts: Mapping[RequestState, Draft]
) -> dict[RequestState, RowOutcome]:
    """What `output_fields` say of each row that has drawn something and not ended since the launch.

    Args:
        content: The host's block.
        shape: The round's.
        drafts: The rows, and how they draft.
    """
    names = ("draft_tokens", "count", "tokens", "accepted", "undrawn", "draft_samples")
    numbers = {name: content[name].tolist() for name in names}
    outcomes = {}
    for row, (state, draft) in enumerate(drafts.items()):
        if state.ended or numbers["undrawn"][row]:
            continue
        draft_tokens = _until_end(state, numbers["draft_tokens"][row][: numbers["count"][row]])
        accepted = min(numbers["accepted"][row], len(draft_tokens))
        outcomes[state] = RowOutcome(
            tokens=numbers["tokens"][row][: accepted + 1],
            draft=draft,
            draft_tokens=draft_tokens,
            draft_samples=[
                sample if shape.draft_samples and sample >= 0 else None
                for sample in numbers["draft_samples"][row][: accepted + 1]
            ],
            logprobs=_logprobs(content, row, accepted + 1, state) if shape.logprobs else [],
        )
    return outcomes


def read_undrawn(content: PackedTensors, drafts: Mapping[RequestState, Draft]) -> set[RequestState]:
    """The rows that have not ended and for which no token could be drawn."""
    pairs = zip(drafts, content["undrawn"].tolist(), strict=False)
    return {state for state, undrawn in pairs if undrawn and not state.ended}


def _write_coefficients(
    host: PackedTensors, shape: RoundShape, row: int, state: RequestState, slots: Sequence[int]
) -> None:
    """Fill in which terms a row has, and how much each of them counts at each position."""
    formula, slot_of = state.formula, dict(zip(state.formula.terms, slots, strict=True))
    host["used"].numpy()[list(slots), row] = True
    steps = [formula.at(state.num_output_tokens + step) for step in range(shape.positions)]
    constant = len(set(map(id, steps))) == 1
    for step, coefficients in enumerate(steps[:1] if constant else steps):
        where = slice(None) if constant else step
        sums = {"target": coefficients.target, "draft": coefficients.draft or ()}
        if shape.conservative:
            sums |= {"small": coefficients.small or (), "upscale": coefficients.upscale or ()}
        for name, summands in sums.items():
            for term, weight in summands:
                host[name].numpy()[slot_of[term], row, where] = weight
    if shape.conservative:
        host["conservative"].numpy()[row] = formula.conservative
        host["upscale_top_p"].numpy()[row] = formula.upscale_top_p
        host["unscaled"].numpy()[row] = formula.unscaled


def _write_penalties(host: PackedTensors, states: Sequence[RequestState]) -> None:
    for row, state in enumerate(states):
        params = state.request.sampling
        host["repetition"].numpy()[row] = params.repetition_penalty
        if not params.has_penalties:
            continue
        host["penalized"].numpy()[row] = True
        host["frequency"].numpy()[row] = params.frequency_penalty
        host["presence"].numpy()[row] = params.presence_penalty
        host["history"].numpy()[row, : len(state.tokens)] = state.tokens
        host["biased"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias)
        host["bias"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias.values())


def _logprobs(content: PackedTensors, row: int, count: int, state: RequestState) -> list[TokenLogprobs]:
    """The log-probabilities that a request asks for, at its first `count` positions."""
    if state.request.top_logprobs is None:
        return []
    top = min(state.request.top_logprobs, MOST_TOP_LOGPROBS)
    logprobs = []
    for step in range(count):
        tokens = content["top_tokens"][row, step, :top].tolist()
        values = content["top_logprobs"][row, step, :top].tolist()
        pairs = tuple(zip(tokens, values, strict=True))
        logprobs.append(TokenLogprobs(float(content["logprob"][row, step]), pairs))
    return logprobs


def _until_end(state: RequestState, tokens: list[int]) -> list[int]:
    """Draft tokens up to the first that ends the answer."""
    ends = (i + 1 for i, token in enumerate(tokens) if state.ends_with(token))
    return tokens[: next(ends, len(tokens))]
