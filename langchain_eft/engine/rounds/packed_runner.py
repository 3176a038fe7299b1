"""Runs packed rounds, whatever their rows do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from langchain_eft.engine.analysis.attribution import Parts, WeightedDelta, attribute, mean, normalize
from langchain_eft.engine.loading.kv_capacity import allocate_pools
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.recipe.schedules import weight_at
from langchain_eft.engine.rounds.packed import PackedRound, forward, verify_work
from langchain_eft.engine.rounds.result import RoundResult
from langchain_eft.engine.rounds.round_cache import RoundCache
from langchain_eft.engine.rounds.round_state import RoundState
from langchain_eft.engine.rounds.shape import exact_shape
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.rounds.transfer import read_outcomes, read_undrawn, write_allowed, write_rows
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow
from langchain_eft.engine.token_trace import TokenTrace


class PackedRunner:
    """Runs rounds of any kind.

    Attributes:
        pools: KV memory of each model.

    Args:
        family: The models.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        max_batch_size: Most rows of a round.

    Raises:
        InsufficientMemoryError: There is no memory for keys and values.
    """

    def __init__(self, family: ModelFamily, num_blocks: int, block_size: int, max_batch_size: int) -> None:
        self.pools = allocate_pools(family, num_blocks * block_size)
        self._state = RoundState(family, self.pools, num_blocks, block_size, max_batch_size)
        self._rounds = RoundCache(partial(PackedRound, state=self._state))

    @torch.inference_mode()
    def run(self, rows: Sequence[ScheduledRow], drafts: Mapping[RequestState, Draft]) -> RoundResult:
        """Draft, compute the tokens of all rows, and draw for the rows that reach their last token.

        Args:
            rows: The round's rows.
            drafts: How the decoding rows draft.
        """
        result = RoundResult(prefilled_tokens=sum(row.num_tokens for row in rows if not row.decodes))
        emitting = {row.state: drafts.get(row.state, Draft()) for row in rows if row.emits}
        started = time.perf_counter()
        if not emitting:
            forward([piece for row in rows for piece in verify_work(row, None, ())], self._state)
        else:
            shape, slots_of_rows = exact_shape(emitting)
            packed = self._rounds[shape]
            packed.begin(rows, slots_of_rows, emitting)
            try:
                started = self._decode(packed, emitting, slots_of_rows, result)
            finally:  # a round that fails must not leave samples to the next one of its shape
                packed.clear()
        for row in rows:
            if row.state in result.undrawn:
                continue
            for name, count in row.counts.items():
                row.state.prompts[name].num_computed_tokens += count
        for state, outcome in result.outcomes.items():
            for prompt in state.prompts.values():
                prompt.num_computed_tokens += outcome.num_accepted
        verified = sum(len(outcome.draft_tokens) + 1 for outcome in result.outcomes.values())
        result.verify_pass = verified, time.perf_counter() - started
        return result

    def _decode(
        self,
        packed: PackedRound,
        drafts: Mapping[RequestState, Draft],
        slots_of_rows: Sequence[Sequence[int]],
        result: RoundResult,
    ) -> float:
        """Run a round in which some row emits; returns when its verify pass began."""
        shape, host = packed.shape, packed.inputs.open()
        write_rows(host, shape, drafts, slots_of_rows, {})
        packed.inputs.send()
        if shape.drafting:
            packed.draft()
        started = time.perf_counter()
        if shape.grammar:
            self._allow(host, packed, drafts)
        packed.verify()
        result.draft_passes = packed.draft_passes
        content = packed.outputs.send().read()
        result.undrawn = {
            state: self._non_finite_terms(state, packed) for state in read_undrawn(content, drafts)
        }
        for state, outcome in read_outcomes(content, shape, drafts).items():
            traces = self._traces(state, outcome, packed) if state.request.trace else []
            result.outcomes[state] = replace(outcome, traces=traces)
        return started

    def _allow(self, host: PackedTensors, packed: PackedRound, drafts: Mapping[RequestState, Draft]) -> None:
        """Tell the device which tokens the grammars allow after each draft token."""
        draft_tokens = [draft.given_tokens for draft in drafts.values()]
        if packed.shape.drafting:
            counts = packed.inputs.device["count"].tolist()
            host["count"].numpy()[:] = counts  # drafting may have stopped early
            draft_tokens = [
                tuple(tokens[:n]) for tokens, n in zip(packed.draft_tokens.tolist(), counts, strict=True)
            ]
        write_allowed(host, list(drafts), draft_tokens)
        packed.inputs.send()

    def _non_finite_terms(self, state: RequestState, packed: PackedRound) -> tuple[Term, ...]:
        """The terms of a row whose logits at its first position are not finite."""
        terms, row = state.formula.terms, packed.row_of[state]
        index = packed.index[[packed.slot_of(state, term) for term in terms], row, 0]
        logits = packed.logits[index].masked_fill(~self._state.family.vocabulary, -torch.inf)
        finite = logits.amax(-1).isfinite().tolist()
        return tuple(term for term, is_finite in zip(terms, finite, strict=True) if not is_finite)

    def _traces(self, state: RequestState, outcome: RowOutcome, packed: PackedRound) -> list[TokenTrace]:
        """Traces of a row's tokens, from the logits that drew them."""
        first = packed.first_position(state)
        return [
            attribute(token, self._parts(state, step, packed.logp[first + step], packed))
            for step, token in enumerate(outcome.tokens)
        ]

    def _parts(self, state: RequestState, step: int, logp: Tensor, packed: PackedRound) -> Parts:
        """What adds up to log p at one step of a row, [V]."""
        formula, family = state.formula, self._state.family
        row, position = packed.row_of[state], state.num_output_tokens + step

        def logprobs(term: Term) -> Tensor:
            index = packed.index[packed.slot_of(state, term), row, step]
            return normalize(packed.logits[index], family.vocabulary)

        gates = {each.behavior: number for number, each in enumerate(formula.gates)}
        first = packed.first_position(state)

        def delta(behavior: int) -> WeightedDelta:
            tuned, reference, weight = formula.behaviors[behavior]
            gate = gates.get(behavior)
            opened = None if gate is None else bool(packed.opened[first + step, gate] == 1)
            now = weight_at(weight, position, opened=bool(opened))
            return WeightedDelta(now, logprobs(tuned), logprobs(reference), opened)

        return Parts(
            p=normalize(logp, family.vocabulary),
            base=logprobs(formula.base),
            deltas={name: delta(number) for number, name in enumerate(state.request.mixture.active())},
            reference=mean(list(map(logprobs, formula.mixture_start))) if formula.mixture_start else None,
            upscale_strength=formula.upscale_strength,
            upscale_top_p=formula.upscale_top_p,
            vocabulary=family.vocabulary,
            unscaled=family.unscaled if formula.unscaled else None,
        )
