"""What host and device tell each other in a round: the tensors, and how the host fills and reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from langchain_eft.engine.decoding.gates import GateNumbers
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
    if shape.gates:
        gates = (rows, shape.gates)
        fields |= {
            "large": ((rows,), _INT),  # slot of L
            "gate_measure": (gates, _INT),
            "gate_threshold": (gates, _REAL),
            "gate_below": (gates, _BOOL),
            "gated": ((*gates, slots), _REAL),  # what each gate adds to the coefficients where it is open
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
        }
    if shape.biases:
        fields |= {"biased": ((rows, shape.biases), _INT), "bias": ((rows, shape.biases), _REAL)}
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
        "prompt_end": ((slots, rows), _INT),  # last token of the term's prompt
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
    states = list(drafts)
    write_constants(host, shape, states)
    for row, (state, slots) in enumerate(zip(states, slots_of_rows, strict=True)):
        write_coefficients(host, shape, row, state, slots)
        write_gates(host, row, state, slots)
        if shape.penalties:
            write_history(host, row, state, 0)
    write_progress(host, drafts, unread)


def write_constants(host: PackedTensors, shape: RoundShape, states: Sequence[RequestState]) -> None:
    """Fill in what stays the same for as long as the rows do.

    Args:
        host: The host's block, all zeros.
        shape: The round's.
        states: The rows.
    """
    requests = [state.request for state in states]
    params = [request.sampling for request in requests]
    host["temperature"].fill_(1.0)
    host["top_p"].fill_(1.0)
    _write_column(host, "limit", [request.max_tokens for request in requests])
    _write_column(host, "prompt", [len(request.prompt_ids) for request in requests])
    _write_column(host, "seed", [p.seed for p in params])
    _write_column(host, "greedy", [p.temperature == 0 for p in params])
    _write_column(host, "temperature", [p.temperature or 1.0 for p in params])
    _write_column(host, "top_k", [p.top_k for p in params])
    _write_column(host, "top_p", [p.top_p for p in params])
    _write_column(host, "min_p", [p.min_p for p in params])
    if shape.conservative:
        formulas = [state.formula for state in states]
        _write_column(host, "conservative", [formula.conservative for formula in formulas])
        _write_column(host, "upscale_top_p", [formula.upscale_top_p for formula in formulas])
        _write_column(host, "unscaled", [formula.unscaled for formula in formulas])
    if shape.penalties:
        _write_column(host, "repetition", [p.repetition_penalty for p in params])
        _write_column(host, "penalized", [p.has_penalties for p in params])
        _write_column(host, "frequency", [p.frequency_penalty for p in params])
        _write_column(host, "presence", [p.presence_penalty for p in params])
    if shape.biases:
        for row, p in enumerate(params):
            host["biased"].numpy()[row, : len(p.logit_bias)] = list(p.logit_bias)
            host["bias"].numpy()[row, : len(p.logit_bias)] = list(p.logit_bias.values())


def write_coefficients(
    host: PackedTensors, shape: RoundShape, row: int, state: RequestState, slots: Sequence[int]
) -> None:
    """Fill in which terms a row has, and how much each of them counts at each position.

    Args:
        host: The host's block.
        shape: The round's.
        row: Which row.
        state: The row.
        slots: The slot of each of its terms.
    """
    formula, slot_of = state.formula, dict(zip(state.formula.terms, slots, strict=True))
    host["used"].numpy()[list(slots), row] = True
    first = state.num_output_tokens
    names = ("target", "draft", *(("small", "upscale") if shape.conservative else ()))
    arrays = {name: host[name].numpy()[:, row] for name in names}
    for array in arrays.values():
        array[:] = 0
    constant = formula.is_constant(first, shape.positions)
    for step in range(1 if constant else shape.positions):
        coefficients = formula.at(first + step)
        for name, array in arrays.items():
            for term, weight in getattr(coefficients, name) or ():
                array[slot_of[term], slice(None) if constant else step] = weight


def write_gates(host: PackedTensors, row: int, state: RequestState, slots: Sequence[int]) -> None:
    """Fill in a row's gates: they stay the same for as long as the rows do.

    Args:
        host: The host's block, all zeros.
        row: Which row.
        state: The row.
        slots: The slot of each of its terms.
    """
    formula = state.formula
    if not formula.gates:
        return
    slot_of = dict(zip(formula.terms, slots, strict=True))
    host["large"].numpy()[row] = slot_of[formula.base]
    for number, each in enumerate(formula.gates):
        gate = GateNumbers.of(each.gate)
        for name, value in zip(gate._fields, gate, strict=True):
            host[f"gate_{name}"].numpy()[row, number] = value
        for term, weight in each.added:
            host["gated"].numpy()[row, number, slot_of[term]] = weight


def write_history(host: PackedTensors, row: int, state: RequestState, first: int) -> None:
    """Fill in the tokens of a row from the number `first` on, if it has penalties."""
    if state.request.sampling.has_penalties:
        host["history"].numpy()[row, first : len(state.tokens)] = state.tokens[first:]


def write_progress(
    host: PackedTensors, drafts: Mapping[RequestState, Draft], unread: Mapping[RequestState, Draft]
) -> None:
    """Fill in where the rows stand, and how they draft.

    Args:
        host: The host's block.
        drafts: The rows, and how they draft.
        unread: Rows of the round before that this one continues, if it has not been read.
    """
    earlier = {state: row for row, state in enumerate(unread)}
    _write_column(host, "source", [earlier.get(state, -1) + 1 for state in drafts])
    _write_column(host, "last", [state.tokens[-1] for state in drafts])
    _write_column(host, "num_output_tokens", [state.num_output_tokens for state in drafts])
    _write_column(host, "count", [draft.count for draft in drafts.values()])
    given = host["given"].numpy()
    given.fill(0)
    for row, draft in enumerate(drafts.values()):
        if draft.given_tokens:
            given[row, : draft.count] = [token + 1 for token in draft.given_tokens]


def write_terms(
    host: PackedTensors, states: Sequence[RequestState], slots_of_rows: Sequence[Sequence[int]]
) -> None:
    """Fill in `paging_fields` except the blocks: they stay the same for as long as the rows do.

    Args:
        host: The host's block, all zeros.
        states: The rows.
        slots_of_rows: The slot of each of a row's terms.
    """
    start, end, variant, base = (host[name].numpy() for name in ("start", "prompt_end", "variant", "base"))
    for row, (state, slots) in enumerate(zip(states, slots_of_rows, strict=True)):
        slot_of = dict(zip(state.formula.terms, slots, strict=True))
        for term, slot in slot_of.items():
            prompt = state.prompts[term.prompt_name]
            start[slot, row] = prompt.num_prompt_tokens
            end[slot, row] = prompt.tokens[prompt.num_prompt_tokens - 1]
            variant[slot, row] = term.variant
        base[row] = slot_of.get(state.formula.base, slots[0])


def write_blocks(
    host: PackedTensors, row: int, state: RequestState, slots: Sequence[int], num_blocks: int
) -> None:
    """Fill in the blocks of a row.

    Args:
        host: The host's block of memory.
        row: Which row.
        state: The row.
        slots: The slot of each of its terms.
        num_blocks: Blocks of one variant.
    """
    table = host["table"].numpy()
    for term, slot in zip(state.formula.terms, slots, strict=True):
        blocks = np.asarray(state.prompts[term.prompt_name].block_table[: table.shape[2]], dtype=np.int32)
        table[slot, row, : len(blocks)] = blocks + term.variant * num_blocks


def write_allowed(
    host: PackedTensors, states: Sequence[RequestState], draft_tokens: Sequence[Sequence[int]]
) -> None:
    """Fill in which tokens the grammars allow after each draft token, as bits.

    Args:
        host: The host's block.
        states: The rows.
        draft_tokens: Of each row.
    """
    allowed = host["allowed"].numpy()
    allowed[:] = -1
    for row, (state, tokens) in enumerate(zip(states, draft_tokens, strict=True)):
        if state.grammar is None:
            continue
        for step in range(len(tokens) + 1):
            allowed[row, step] = state.grammar.bits(tokens[:step])


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


def _write_column(host: PackedTensors, name: str, values: list[int] | list[float] | list[bool]) -> None:
    """Fill in the first rows of a column."""
    host[name].numpy()[: len(values)] = values


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
