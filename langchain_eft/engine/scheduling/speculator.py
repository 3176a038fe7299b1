"""How each row drafts: which source, and how many tokens.

Acceptance itself is decided in `decoding/acceptance.py`. It never depends on what is chosen here: a draft
changes the speed, and never the text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile

from langchain_eft.engine.limits import LONGEST_DRAFT
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.draft_length import (
    AcceptanceRate,
    AcceptanceRates,
    PassCosts,
    RowForecast,
    choose_drafts,
)
from langchain_eft.engine.scheduling.request_state import RequestState


class Speculator:
    """Decides how rows draft, from the acceptance rates and the costs that it has measured.

    Measuring acceptance costs nothing: a row without a draft still shows what would have been accepted.

    Args:
        bytes_read: Bytes of weights that a pass over some terms reads. They estimate the cost of a pass until
            it has been measured.
    """

    def __init__(self, bytes_read: Callable[[Iterable[Term]], int]) -> None:
        self._bytes_read = bytes_read
        self._rates = lru_cache(maxsize=256)(_slow_rates)
        self._costs = lru_cache(maxsize=256)(_no_costs)

    def initial_rates(self, request: GenerationRequest) -> AcceptanceRates:
        """Acceptance rates that a new request starts with: those of earlier requests of its kind."""
        return self._rates_of_kind(request).prior_for_new_request()

    def draft(
        self, states: Sequence[RequestState], unread: Mapping[RequestState, Draft]
    ) -> dict[RequestState, Draft] | None:
        """Choose the drafts of a round.

        Args:
            states: The decoding rows.
            unread: Rows and drafts of the round before, if it has not been read. Prompt lookup cannot tell
                what follows unknown tokens. So where it promises most, that round has to be read first. So it
                has where grammars or penalties decide how a token is drawn: they depend on those before.

        Returns:
            The rows that go on, and how they draft; None if the unread round has to be read first.
        """
        # Rows whose answers the unread round ends are not among those that go on.
        limits = {state: state.remaining_tokens - 1 - (state in unread) for state in states}
        limits = {state: limit for state, limit in limits.items() if limit >= 0}
        if any(state in unread and state.draws_depend_on_tokens for state in limits):
            return None
        forced = [state.grammar.forced() if state.grammar and state not in unread else [] for state in limits]
        proposals = [
            (tokens or state.lookup.propose(state.tokens, LONGEST_DRAFT))[: min(LONGEST_DRAFT, limit)]
            for (state, limit), tokens in zip(limits.items(), forced, strict=True)
        ]
        forecasts = [
            _forecast(state, proposal, limit, forced=bool(tokens))
            for (state, limit), proposal, tokens in zip(limits.items(), proposals, forced, strict=True)
        ]
        drafts = dict(zip(limits, self._choose(list(limits), forecasts, proposals), strict=True))
        if any(state in unread and draft.given_tokens for state, draft in drafts.items()):
            return None
        return {
            state: Draft("model", draft.count) if state in unread else draft
            for state, draft in drafts.items()
        }

    def observe(self, outcomes: Mapping[RequestState, RowOutcome]) -> None:
        """Learn from a round how often q's samples were accepted, drafted or not."""
        for state, outcome in outcomes.items():
            pairs = [
                (sample, token)
                for sample, token in zip(outcome.draft_samples, outcome.tokens, strict=True)
                if sample is not None
            ]
            lookup = (0, 0) if state.grammar else _lookup_trials(outcome)
            for rates in (state.rates, self._rates_of_kind(state.request)):
                rates.model.observe(sum(sample == token for sample, token in pairs), len(pairs))
                rates.lookup.observe(*lookup)

    def observe_costs(
        self,
        states: Sequence[RequestState],
        draft_passes: Sequence[tuple[int, float]],
        verify_pass: tuple[int, float],
    ) -> None:
        """Learn from a round without prefill what its passes cost.

        Args:
            states: The decoding rows.
            draft_passes: Rows and seconds of each draft pass.
            verify_pass: Tokens and seconds of the verify pass.
        """
        draft, verify = self._pass_costs(states)
        for size, seconds in draft_passes:
            draft.observe(size, seconds)
        verify.observe(*verify_pass)

    def _choose(
        self,
        states: Sequence[RequestState],
        forecasts: Sequence[RowForecast],
        proposals: Sequence[Sequence[int]],
    ) -> list[Draft]:
        draft_costs, verify_costs = self._pass_costs(states)
        choices = choose_drafts(forecasts, draft_costs, verify_costs, self._draft_share(states))
        return [
            Draft(source, count, tuple(proposal))
            for (source, count), proposal in zip(choices, proposals, strict=True)
        ]

    def _rates_of_kind(self, request: GenerationRequest) -> AcceptanceRates:
        return self._rates((request.mixture, request.upscale_strength, request.sampling.temperature == 0))

    def _draft_share(self, states: Sequence[RequestState]) -> float:
        """Cost of a draft pass as a share of a pass over all terms, estimated by bytes of weights."""
        draft = self._bytes_read(term for state in states for term in state.formula.draft_terms)
        everything = self._bytes_read(term for state in states for term in state.formula.terms)
        return draft / everything if everything else 0.0

    def _pass_costs(self, states: Sequence[RequestState]) -> tuple[PassCosts, PassCosts]:
        return self._costs(frozenset[Term]().union(*(state.formula.term_set for state in states)))


def _slow_rates(_: Hashable) -> AcceptanceRates:
    """Rates of a kind of request: they change slowly."""
    return AcceptanceRates(AcceptanceRate(memory=512), AcceptanceRate(memory=512))


def _no_costs(_: Hashable) -> tuple[PassCosts, PassCosts]:
    """Costs of draft and verify passes over some terms, before any is measured."""
    return PassCosts(), PassCosts()


def _lookup_trials(outcome: RowOutcome) -> tuple[int, int]:
    """Tokens that prompt lookup predicted correctly, and tokens of it that could be judged."""
    pairs = list(zip(outcome.draft.lookup_tokens, outcome.tokens, strict=False))
    hits = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return hits, min(hits + 1, len(pairs))


def _forecast(state: RequestState, proposal: Sequence[int], limit: int, *, forced: bool) -> RowForecast:
    speculation = state.request.speculation
    return RowForecast(
        model=None if state.formula.drafter is None else state.rates.model.value,
        lookup=1.0 if forced else state.rates.lookup.value,
        lookup_tokens=len(proposal),
        limit=limit,
        fixed=0 if speculation == "off" else None if speculation == "auto" else speculation,
    )
