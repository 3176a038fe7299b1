"""What the logits of a round say about one of its rows: traces of tokens, and which models have failed."""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.analysis.attribution import Parts, WeightedDelta, attribute, mean, normalize
from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.recipe.schedules import weight_at
from langchain_eft.engine.rounds.round import Round
from langchain_eft.engine.scheduling.draft import RowOutcome
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.token_trace import TokenTrace


def traces(
    state: RequestState, outcome: RowOutcome, round_: Round, row: int, family: ModelFamily
) -> list[TokenTrace]:
    """Traces of a row's tokens, from the logits that drew them."""
    first = round_.first_position(row)
    return [
        attribute(token, _parts(state, step, first + step, round_, family))
        for step, token in enumerate(outcome.tokens)
    ]


def non_finite_terms(state: RequestState, round_: Round, row: int, family: ModelFamily) -> tuple[Term, ...]:
    """The terms of a row whose logits at its first position are not finite."""
    terms = terms_in_order(state.formula)
    entry = round_.wanted.entry[round_.first_position(row), : len(terms)]
    finite = round_.logits[entry].masked_fill(~family.vocabulary, -torch.inf).amax(-1).isfinite().tolist()
    return tuple(term for term, is_finite in zip(terms, finite, strict=True) if not is_finite)


def _parts(state: RequestState, step: int, position: int, round_: Round, family: ModelFamily) -> Parts:
    """What adds up to log p at one step of a row, which is one of the round's positions."""
    formula = state.formula
    entry = dict(zip(terms_in_order(formula), round_.wanted.entry[position].tolist(), strict=False))
    gates = {each.behavior: number for number, each in enumerate(formula.gates)}

    def logprobs(term: Term) -> Tensor:
        return normalize(round_.logits[entry[term]], family.vocabulary)

    def delta(behavior: int) -> WeightedDelta:
        tuned, reference, weight = formula.behaviors[behavior]
        opened = None
        if behavior in gates and round_.opened is not None:
            opened = bool(round_.opened[position, gates[behavior]] == 1)
        now = weight_at(weight, state.num_output_tokens + step, opened=bool(opened))
        return WeightedDelta(now, logprobs(tuned), logprobs(reference), opened)

    return Parts(
        p=normalize(round_.logp[position], family.vocabulary),
        base=logprobs(formula.base),
        deltas={name: delta(number) for number, name in enumerate(state.request.mixture.active())},
        reference=mean(list(map(logprobs, formula.mixture_start))) if formula.mixture_start else None,
        upscale_strength=formula.upscale_strength,
        upscale_top_p=formula.upscale_top_p,
        vocabulary=family.vocabulary,
        unscaled=family.unscaled if formula.unscaled else None,
    )
