"""How many tokens to draft: measured acceptance rates and costs, and the choice that follows from them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, product, repeat
from operator import mul
from typing import Literal

Source = Literal["model", "lookup"]

DRAFT_LENGTHS = (1, 2, 3, 4, 6, 8)
"""Draft lengths that are tried, beside none."""

_MARGIN = 1.1


@dataclass
class AcceptanceRate:
    """Share of drafted tokens that were accepted lately.

    Attributes:
        hits: Accepted tokens; old ones fade.
        trials: Drafted tokens; old ones fade.
        memory: About how many drafted tokens count.
    """

    hits: float = 1.0
    trials: float = 2.0
    memory: float = 32.0

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.hits / self.trials

    def observe(self, hits: int, trials: int) -> None:
        """Count drafted tokens, and how many of them were accepted."""
        fade = (1 - 1 / self.memory) ** trials
        self.hits, self.trials = self.hits * fade + hits, self.trials * fade + trials

    def prior_for_new_request(self) -> AcceptanceRate:
        """A rate that starts at this value and changes quickly: it weighs as much as four tokens."""
        scale = min(1.0, 4 / self.trials)
        return replace(self, hits=self.hits * scale, trials=self.trials * scale, memory=32.0)


@dataclass
class AcceptanceRates:
    """The acceptance rates of both draft sources."""

    model: AcceptanceRate = field(default_factory=AcceptanceRate)
    lookup: AcceptanceRate = field(default_factory=AcceptanceRate)

    def prior_for_new_request(self) -> AcceptanceRates:
        """Rates for a new request of the same kind."""
        return AcceptanceRates(self.model.prior_for_new_request(), self.lookup.prior_for_new_request())


class PassCosts:
    """Seconds of a pass by its number of tokens: the best of the last five, interpolated between sizes."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._estimates: dict[int, float | None] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        """Record one pass."""
        self._seen.setdefault(tokens, deque(maxlen=5)).append(seconds)
        self._estimates.clear()

    def measurements(self, tokens: int) -> int:
        """How many measurements of a size are kept."""
        return len(self._seen.get(tokens, ()))

    def estimate(self, tokens: int) -> float | None:
        """Seconds for any size; None before the first measurement."""
        if tokens not in self._estimates:
            self._estimates[tokens] = self._interpolated(tokens)
        return self._estimates[tokens]

    def _interpolated(self, tokens: int) -> float | None:
        below = max((n for n in self._seen if n <= tokens), default=None)
        above = min((n for n in self._seen if n >= tokens), default=None)
        if below is None or above is None:
            nearest = below or above
            if nearest is None:
                return None
            # Reading weights bounds a pass, so more tokens cost little. Measurements correct this estimate.
            return self._best(nearest) * (1 + 0.05 * tokens) / (1 + 0.05 * nearest)
        if below == above:
            return self._best(below)
        share = (tokens - below) / (above - below)
        return (1 - share) * self._best(below) + share * self._best(above)

    def _best(self, tokens: int) -> float:
        return min(self._seen[tokens])


@dataclass(frozen=True)
class RowForecast:
    """What is expected of one decoding row before a round.

    Attributes:
        model: Acceptance rate of the small models' drafts, or None where they cannot draft.
        lookup: Acceptance rate of prompt lookup.
        lookup_tokens: How many tokens prompt lookup proposes.
        limit: Most tokens that may be drafted.
        fixed: Draft length that the request demands, or None.
    """

    model: float | None
    lookup: float
    lookup_tokens: int
    limit: int
    fixed: int | None


Choice = tuple[Source, int]


def expected_tokens(acceptance_rates: Iterable[float]) -> float:
    """Tokens that a round yields on average: `1 + a_1 + a_1 a_2 + ...`.

    With K equal rates it is `(1 - a**(K + 1)) / (1 - a)` (Leviathan et al. 2023, section 3.1, equation 1).

    Args:
        acceptance_rates: Of each draft token, given that those before it are accepted.
    """
    return sum(accumulate(acceptance_rates, mul, initial=1.0))


def choose_drafts(
    rows: Sequence[RowForecast], draft: PassCosts, verify: PassCosts, share: float
) -> list[Choice]:
    """The draft lengths with the most expected tokens per second.

    A round costs one draft pass per drafted token and one verify pass over all tokens; a row gains
    `1 + a + ... + a**K` tokens on average (Leviathan et al. 2023, section 3.1).

    Args:
        rows: The decoding rows of a batch.
        draft: Costs of draft passes by number of rows.
        verify: Costs of verify passes by number of tokens.
        share: Estimated cost of a draft pass, as a share of a verify pass of the same size.
    """
    plain = [_fixed(row) if row.fixed is not None else ("model", 0) for row in rows]
    if verify.estimate(len(rows)) is None or all(row.fixed is not None for row in rows):
        return plain
    options = [_Options.of(row) for row in rows]
    best, best_speed = plain, _MARGIN * _speed(options, plain, draft, verify, share)
    by_models = _lengths_up_to(max(option.most_by_model for option in options))
    by_lookups = _lengths_up_to(max(option.most_by_lookup for option in options))
    for by_model, by_lookup in product(by_models, by_lookups):
        choices = [option.pick(by_model, by_lookup) for option in options]
        speed = _speed(options, choices, draft, verify, share)
        if speed > best_speed:
            best, best_speed = choices, speed
    return best


def _lengths_up_to(most: int) -> list[int]:
    """The draft lengths to try if no row can draft more than `most` tokens: a longer one changes nothing."""
    return [0, *(k for shorter, k in pairwise((0, *DRAFT_LENGTHS)) if shorter < most)]


def _fixed(row: RowForecast) -> Choice:
    count = min(row.fixed or 0, row.limit)
    if row.lookup_tokens or row.model is None:
        return "lookup", min(count, row.lookup_tokens)
    return "model", count


@dataclass(frozen=True)
class _Options:
    """What one row can choose, and what it gains by that.

    Attributes:
        fixed: The choice that the request demands, or None.
        most_by_model: Most tokens that the small models may draft; 0 with a fixed choice.
        most_by_lookup: Most tokens that prompt lookup may draft; 0 with a fixed choice.
        gains: Expected tokens of a round for each draft length, by source.
    """

    fixed: Choice | None
    most_by_model: int
    most_by_lookup: int
    gains: dict[Source, list[float]]

    @classmethod
    def of(cls, row: RowForecast) -> _Options:
        fixed, free = (None, row.limit) if row.fixed is None else (_fixed(row), 0)
        longest = max(DRAFT_LENGTHS) if fixed is None else fixed[1]
        return cls(
            fixed=fixed,
            most_by_model=0 if row.model is None else free,
            most_by_lookup=min(row.lookup_tokens, free),
            gains={"model": _gains(row.model or 0.0, longest), "lookup": _gains(row.lookup, longest)},
        )

    def pick(self, by_model: int, by_lookup: int) -> Choice:
        """The source that gains more, if each drafts at most so many tokens."""
        if self.fixed is not None:
            return self.fixed
        model, lookup = min(by_model, self.most_by_model), min(by_lookup, self.most_by_lookup)
        if self.gains["lookup"][lookup] > self.gains["model"][model]:
            return "lookup", lookup
        return "model", model


def _gains(rate: float, longest: int) -> list[float]:
    """`expected_tokens` of drafts with 0 to `longest` tokens."""
    return list(accumulate(accumulate(repeat(rate, longest), mul, initial=1.0)))


def _speed(
    options: Sequence[_Options], choices: Sequence[Choice], draft: PassCosts, verify: PassCosts, share: float
) -> float:
    """Expected tokens per second of a round."""
    tokens = sum(count for _, count in choices) + len(choices)
    seconds = verify.estimate(tokens) or 0.0
    lengths = sorted(count for source, count in choices if source == "model")
    for step in range(lengths[-1] if lengths else 0):
        size = len(lengths) - bisect_right(lengths, step)
        seconds += draft.estimate(size) or share * (verify.estimate(size) or 0.0)
    drafts = zip(options, choices, strict=True)
    gained = sum(option.gains[source][count] for option, (source, count) in drafts)
    return gained / seconds if seconds else 0.0
