"""Speculative EFT sampling: small models guess several tokens, one pass over all models checks them.

Every token is drawn from p by one rule, with random numbers that depend on the seed and the position only:

    d ~ q;  keep d if u q(d) < p(d), else draw from max(p - q, 0)      (Leviathan et al. 2023, theorem 1)

This is an exact sample of p for any q, and it equals d as often as any rule could make it. Whether d was
guessed ahead makes no difference, so neither the draft length nor the company in the batch changes a text:
a guess, wherever it comes from, is right if it is the token that the rule draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field, replace
from itertools import takewhile

from torch import Tensor

from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import GenerationRequest, TokenLogprobs
from langchain_eft.engine.scheduling.draft_length import (
    AcceptanceRate,
    AcceptanceRates,
    Outlook,
    PassCosts,
    Source,
    choose,
)
from langchain_eft.engine.scheduling.request_state import Sequence
from langchain_eft.engine.scheduling.scheduler import ScheduledRow, Scheduler
from langchain_eft.engine.token_trace import TokenTrace

_LONGEST = 16


@dataclass
class Draft:
    """The guesses of one row in one round.

    Attributes:
        source: Who guesses.
        count: How many guesses are wanted.
        found: What prompt lookup proposes, taken or not.
        tokens: The guesses.
        probs: For the model's guesses, the [V] float64 rows of q that they were drawn from; None if greedy.
    """

    source: Source
    count: int
    found: list[int]
    tokens: list[int] = field(default_factory=list)
    probs: list[Tensor | None] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a round has drawn for one row.

    Attributes:
        sequence: Whose tokens.
        tokens: Accepted guesses and the token after them.
        draft: The guesses.
        foreseen: For each of `tokens` the sample of q at its position, where one was drawn.
        logprobs: One for each of `tokens`, if the request asks for them.
        traces: The same.
    """

    sequence: Sequence
    tokens: list[int]
    draft: Draft
    foreseen: list[int | None]
    logprobs: list[TokenLogprobs]
    traces: list[TokenTrace] = field(default_factory=list)


class Speculator:
    """Decides who drafts how much, from what drafting has measured.

    Acceptance costs nothing to measure: a row that drafts nothing still shows what would have been accepted.

    Args:
        bytes_read: Weights that a pass over some terms reads: what it costs, until that has been measured.
    """

    def __init__(self, bytes_read: Callable[[Iterable[Term]], int]) -> None:
        self._bytes_read = bytes_read
        self._kinds: dict[object, AcceptanceRates] = {}
        self._costs: dict[object, tuple[PassCosts, PassCosts]] = {}

    def rates(self, request: GenerationRequest) -> AcceptanceRates:
        """Rates that a new request starts with: those of the requests like it."""
        return self._of_kind(request).successor()

    def plan(self, rows: Rows[ScheduledRow], scheduler: Scheduler) -> dict[Sequence, Draft]:
        """Drafts for the decoding rows, with memory reserved."""
        decoding = [row.sequence for row in rows if row.decodes]
        forced = [s.grammar.forced() if s.grammar else [] for s in decoding]
        found = [
            (f or s.lookup.guess(s.tokens, _LONGEST))[: min(_LONGEST, s.room - 1)]
            for s, f in zip(decoding, forced, strict=True)
        ]
        outlooks = list(map(_outlook, decoding, found, forced))
        if len(decoding) < len(rows):  # a prompt's chunk sets the pace, and what drafts cost cannot be told
            outlooks = [replace(o, fixed=o.fixed or 0) for o in outlooks]
        draft, verify = self._pass_costs(decoding)
        drafts = {}
        for s, guesses, (source, count) in zip(
            decoding, found, choose(outlooks, draft, verify, self._share(decoding)), strict=True
        ):
            count = scheduler.reserve(s, count)
            drafts[s] = Draft(source, count, guesses, guesses[:count] if source == "lookup" else [])
        return drafts

    def plan_ahead(
        self, drafts: Mapping[Sequence, Draft], scheduler: Scheduler
    ) -> dict[Sequence, Draft] | None:
        """Drafts for the round after one whose tokens are not known yet; None if they have to be known first.

        Earlier text cannot tell what follows unknown tokens: where it promises most, the round is read first.

        Args:
            drafts: The unread round's rows and their drafts.
            scheduler: Reserves memory for what both rounds may write.
        """
        rows = [s for s in drafts if not (s.finished or s.generation.cancelled) and s.room > 1]
        if not rows or not scheduler.steady(drafts):
            return None
        found = [s.lookup.guess(s.tokens, _LONGEST)[: s.room - 2] for s in rows]
        outlooks = [replace(_outlook(s, f, []), room=s.room - 2) for s, f in zip(rows, found, strict=True)]
        draft, verify = self._pass_costs(rows)
        following = {}
        for s, (source, count) in zip(rows, choose(outlooks, draft, verify, self._share(rows)), strict=True):
            unread = drafts[s].count + 1
            reserved = scheduler.reserve(s, unread + count) - unread
            if (source == "lookup" and count) or reserved < 0 or not s.foreseeable(unread + reserved + 1):
                return None
            following[s] = Draft("model", reserved, [])
        return following

    def observe(self, outcomes: Rows[Outcome]) -> None:
        """Learn from a round how good the guesses were, made or not."""
        for outcome in outcomes:
            s = outcome.sequence
            known = [(d, x) for d, x in zip(outcome.foreseen, outcome.tokens, strict=True) if d is not None]
            looked_up = (0, 0) if s.grammar else _looked_up(outcome)
            for rates in (s.rates, self._of_kind(s.generation.request)):
                rates.model.observe(sum(d == x for d, x in known), len(known))
                rates.lookup.observe(*looked_up)

    def observe_costs(
        self, sequences: Rows[Sequence], passes: Rows[tuple[int, float]], verified: tuple[int, float]
    ) -> None:
        """Learn from a round without prefill what its passes cost.

        Args:
            sequences: The decoding rows.
            passes: Rows and seconds of each draft pass.
            verified: Tokens and seconds of the verifying pass.
        """
        draft, verify = self._pass_costs(sequences)
        for size, seconds in passes:
            draft.observe(size, seconds)
        verify.observe(*verified)

    def _of_kind(self, request: GenerationRequest) -> AcceptanceRates:
        kind = (request.mixture, request.upscale_strength, request.sampling.temperature == 0)
        slow = AcceptanceRates(AcceptanceRate(memory=512), AcceptanceRate(memory=512))
        return self._kinds.setdefault(kind, slow)

    def _share(self, sequences: Rows[Sequence]) -> float:
        """Cost of a draft pass as part of a whole pass, as far as weights tell."""
        draft = self._bytes_read(term for s in sequences for term in s.formula.draft_terms)
        whole = self._bytes_read(term for s in sequences for term in s.formula.terms)
        return draft / whole if whole else 0.0

    def _pass_costs(self, sequences: Rows[Sequence]) -> tuple[PassCosts, PassCosts]:
        terms = frozenset(term for s in sequences for term in s.formula.terms)
        return self._costs.setdefault(terms, (PassCosts(), PassCosts()))


def _looked_up(outcome: Outcome) -> tuple[int, int]:
    """Right guesses of prompt lookup, and guesses whose truth is known."""
    pairs = list(zip(outcome.draft.found, outcome.tokens, strict=False))
    hits = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return hits, min(hits + 1, len(pairs))


def _outlook(sequence: Sequence, found: Rows[int], forced: Rows[int]) -> Outlook:
    wanted = sequence.generation.request.speculation
    return Outlook(
        model=None if sequence.formula.drafter is None else sequence.rates.model.value,
        lookup=1.0 if forced else sequence.rates.lookup.value,
        found=len(found),
        room=sequence.room - 1,
        fixed=0 if wanted == "off" else None if wanted == "auto" else wanted,
    )
