"""The decoding formula as tensors.

    log p = beta * L + sum_i w_i F_i - (beta - 1 + sum_i w_i) S          (Mitchell et al. 2023, eq. 4 and 7)

L is the large base, S the small reference, and F_i are the small tuned models. The formula has two factors:
the small mixture `S + sum_i w_i (F_i - S)`, and the up-scaling weight `(L / S) ** beta`.

Some tokens get the up-scaling weight 1. The first kind are tokens outside the nucleus of the small mixture
(conservative decoding, section 3.2 of the paper). The second kind are special tokens of the tuned models'
template that the base was never trained on: their probabilities in L and S are noise.

Where behaviors have references of their own, S is the mean of the references' log-probabilities.

The weight of a behavior may have a gate (`recipe.gate`). An open gate adds `weight - otherwise` times the
behavior's delta to log p and to the small mixture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Generic, TypeVar

import torch
from torch import Tensor

from langchain_eft.engine.decoding.nucleus import nucleus
from langchain_eft.engine.decoding.shortcuts import takes_shortcuts
from langchain_eft.engine.device_kernels import with_kernel
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.gate import Gate, gate_states
from langchain_eft.engine.recipe.schedules import Weight, knots, values, weight_at

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Coefficients(Generic[T]):
    """The formula at one position of an answer. Every sum lists its terms with their coefficients, none zero.

    Attributes:
        target: log p.
        small: The small mixture. None where all tokens have the same up-scaling weight.
        upscale: The logarithm of the up-scaling weight, `beta (L - S)`. None where `small` is None.
        draft: log q, the draft distribution. None where no part of the formula can draft.
    """

    target: tuple[tuple[T, float], ...]
    small: tuple[tuple[T, float], ...] | None
    upscale: tuple[tuple[T, float], ...] | None
    draft: tuple[tuple[T, float], ...] | None


@dataclass(frozen=True)
class GatedDelta(Generic[T]):
    """What an open gate adds to log p, and to the small mixture."""

    behavior: int  # number of the behavior whose weight has the gate
    gate: Gate
    # the terms and their coefficients: `weight - otherwise` times the behavior's delta
    added: tuple[tuple[T, float], ...]


@dataclass(frozen=True)
class Drafter(Generic[T]):
    """The source of draft tokens."""

    term: T  # the first term of q
    mixed: bool  # whether q is `term` plus the weighted deltas `w_i (F_i - S_i)`, rather than `term` alone


@dataclass(frozen=True)
class Formula(Generic[T]):
    """The formula of one request. A term is a variant of a model that reads one of the request's prompts."""

    base: T  # the term of L
    behaviors: tuple[tuple[T, T, Weight], ...]  # F_i, S_i and w_i of the behaviors in the mixture
    references: tuple[T, ...]  # the distinct S_i, each on the base's prompt. The base itself is left out
    common_reference: T | None  # the term of S where beta or `upscale_top_p` needs a single one; else None
    upscale_strength: float  # beta
    upscale_top_p: float  # nucleus of the small mixture inside which tokens are up-scaled
    drafter: Drafter[T] | None = None
    unscaled: bool = False  # whether some tokens always follow the small mixture alone
    traced: bool = False  # whether to run terms that cancel out too, for a trace reports them

    @property
    def mixture_start(self) -> tuple[T, ...]:
        """The terms whose mean the small mixture starts from. Empty where no small model takes part."""
        return self.references if self.common_reference is None else (self.common_reference,)

    @cached_property
    def conservative(self) -> bool:
        """Whether only some tokens are up-scaled. It is the same at every position."""
        return self.at(0).small is not None

    @property
    def has_nucleus(self) -> bool:
        """Whether only tokens inside a nucleus are up-scaled."""
        return self.conservative and self.upscale_top_p < 1

    @cached_property
    def gates(self) -> tuple[GatedDelta[T], ...]:
        """The gates of the behaviors, less those that change nothing."""
        return tuple(
            GatedDelta(number, weight, added)
            for number, (tuned, reference, weight) in enumerate(self.behaviors)
            if isinstance(weight, Gate)
            and (change := weight.weight - weight.otherwise)
            and (added := _total([(tuned, change), (reference, -change)]))
        )

    def at(self, position: int) -> Coefficients[T]:
        """The coefficients for the answer's token at `position`, counted from 0; equal ones are identical.

        Gates are closed in p and open in q: who drafts does not know L.
        """
        return self._last if position >= self.knots[-1] else self._at(position)

    def is_constant(self, first: int, count: int) -> bool:
        """Whether `count` positions, from the position `first` on, have the same coefficients."""
        return first >= self.knots[-1] or len({id(self.at(first + i)) for i in range(count)}) == 1

    def _at(self, position: int, opened: Container[int] = ()) -> Coefficients[T]:
        """The coefficients at `position` where the gates of some behaviors, given by number, are open."""
        weights = tuple(
            weight_at(weight, position, opened=number in opened)
            for number, (_, _, weight) in enumerate(self.behaviors)
        )
        if weights not in self._coefficients:
            drafting = (weight_at(weight, position, opened=True) for _, _, weight in self.behaviors)
            self._coefficients[weights] = self._with(weights, tuple(drafting))
        return self._coefficients[weights]

    def distributions(self) -> Iterator[tuple[tuple[T, float], ...]]:
        """Every sum of terms that tokens are drawn from, at the positions between which weights are linear.

        There is one for every way in which gates can be open together. Under `upscale_top_p` the tokens
        outside the nucleus follow the small mixture. The few tokens that are unscaled do too, but they are no
        text, so they do not count here.
        """
        for position, opened in product(self.knots, gate_states([each.gate for each in self.gates])):
            numbers = {each.behavior for each, is_open in zip(self.gates, opened, strict=True) if is_open}
            coefficients = self._at(position, numbers)
            yield coefficients.target
            if self.upscale_top_p < 1 and coefficients.small:
                yield coefficients.small

    @cached_property
    def knots(self) -> list[int]:
        """Positions between which coefficients are linear; after the last position they are constant."""
        # A coefficient that is zero at both ends is zero in between, so `terms` needs no other positions.
        return sorted({0, *(knot for *_, weight in self.behaviors for knot in knots(weight))})

    @cached_property
    def terms(self) -> tuple[T, ...]:
        """Every term that an answer runs, in a fixed order. Each runs at every position."""
        at_knots = [self.at(position) for position in self.knots]
        sums = [total for c in at_knots for total in (c.target, c.small or (), c.upscale or ())]
        if self.gates:  # they ask the base, even where log p has no such term
            sums += [((self.base, 1.0),), *(each.added for each in self.gates)]
        ordered = dict.fromkeys(term for total in sums for term, _ in total)
        if self.traced:
            pairs = (term for *pair, _ in self.behaviors for term in pair)
            ordered |= dict.fromkeys([self.base, *self.mixture_start, *pairs])
        return tuple(ordered)

    @cached_property
    def term_set(self) -> frozenset[T]:
        """The terms without their order."""
        return frozenset(self.terms)

    @cached_property
    def draft_terms(self) -> tuple[T, ...]:
        """The terms of q, in a fixed order. A term may have coefficient 0 at some positions."""
        return tuple(dict.fromkeys(t for knot in self.knots for t, _ in self.at(knot).draft or ()))

    @cached_property
    def _last(self) -> Coefficients[T]:
        """The coefficients from the last knot on."""
        return self._at(self.knots[-1])

    @cached_property
    def _coefficients(self) -> dict[tuple[float, ...], Coefficients[T]]:
        """The coefficients computed so far, by the weights of the behaviors."""
        return {}

    def _with(self, weights: tuple[float, ...], drafting: tuple[float, ...]) -> Coefficients[T]:
        """The coefficients for given weights of the behaviors in p, and in q."""
        beta, deltas = self.upscale_strength, self._deltas(weights)
        target = [(self.base, beta), *deltas.items()]
        if self.common_reference is not None:
            target.append((self.common_reference, 1 - beta))
        mean = [(reference, 1 / len(self.mixture_start)) for reference in self.mixture_start]
        small = upscale = draft = None
        if mean and (self.unscaled or self.upscale_top_p < 1):
            upscale = _total([(self.base, beta), *((reference, -beta * share) for reference, share in mean)])
            small = _total([*mean, *deltas.items()]) if upscale else None
        if self.drafter is not None:
            mixed = self._deltas(drafting).items() if self.drafter.mixed else ()
            draft = _total([(self.drafter.term, 1.0), *mixed])
        return Coefficients(_total(target), small, upscale or None, draft)

    def _deltas(self, weights: tuple[float, ...]) -> Counter[T]:
        """`sum_i w_i (F_i - S_i)`."""
        deltas: Counter[T] = Counter()
        for (tuned, reference, _), weight in zip(self.behaviors, weights, strict=True):
            deltas[tuned] += weight  # type: ignore[assignment]
            deltas[reference] -= weight  # type: ignore[assignment]
        return deltas


def build_formula(
    base: T,
    behaviors: Mapping[str, tuple[T, T]],
    weights: Mapping[str, Weight],
    upscale_strength: float = 1.0,
    upscale_top_p: float = 1.0,
    cost: Callable[[T], float] = lambda _: 1.0,
    on_base_prompt: Callable[[T], T] = lambda term: term,
    *,
    unscaled: bool = False,
) -> Formula[T]:
    """Write a mixture as a formula of terms.

    Args:
        base: The term of L.
        behaviors: Terms of F_i and S_i of every behavior of the recipe.
        weights: w_i of the behaviors in the mixture.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        cost: How expensive a term is to run.
        on_base_prompt: The term of the same model that reads the base's prompt.
        unscaled: Whether there are tokens that the base was never trained on. They are the tuned models', so
            without behaviors they do not matter.

    Raises:
        RecipeError: beta or upscale_top_p need one common reference, and the behaviors have none or several.
    """
    names, common_reference = list(weights) or list(behaviors), None
    # A behavior that compares the base with itself (a prompt) does not say which model is small.
    candidates = dict.fromkeys(on_base_prompt(behaviors[name][1]) for name in names)
    references = tuple(reference for reference in candidates if reference != base)
    if upscale_strength != 1 or upscale_top_p < 1:
        common_reference = _common_reference(base, names, references, upscale_strength, upscale_top_p)
    pairs = tuple((*behaviors[name], weight) for name, weight in weights.items())
    formula = Formula(
        base,
        pairs,
        references if pairs else (),
        common_reference,
        upscale_strength,
        upscale_top_p,
        unscaled=unscaled and bool(pairs),
    )
    for drafter in _drafters(formula, cost):
        candidate = replace(formula, drafter=drafter)
        # A draft costs nothing extra only if the formula runs its terms anyway.
        if set(candidate.draft_terms) < set(candidate.terms):
            return candidate
    return formula


def _drafters(formula: Formula[T], cost: Callable[[T], float]) -> Iterable[Drafter[T]]:
    """Possible sources of draft tokens, best first.

    1. The base, if it is cheaper than all tuned models (down-scaling).
    2. The small mixture. For one behavior at weight 1 it is the tuned model.
    3. The tuned model with the largest weight. Models cheaper than the base come before others.
    """
    base = formula.base
    if formula.behaviors and all(cost(base) < cost(tuned) for tuned, *_ in formula.behaviors):
        yield Drafter(base, mixed=False)
    reference = next(iter(formula.references), formula.common_reference)
    if len(formula.references) < 2 and reference is not None:
        small = Drafter(reference, mixed=True)
        if base not in replace(formula, drafter=small).draft_terms:
            yield small
    tuned = [
        (cost(term) < cost(base), max(values(w)), term) for term, _, w in formula.behaviors if term != base
    ]
    if tuned:
        yield Drafter(max(tuned, key=lambda candidate: candidate[:2])[2], mixed=False)


def _total(summands: Iterable[tuple[T, float]]) -> tuple[tuple[T, float], ...]:
    """The sum of the coefficients of each term, without terms whose coefficients cancel."""
    total: Counter[T] = Counter()
    for term, weight in summands:
        total[term] += weight  # type: ignore[assignment]
    # Rounding leaves tiny sums such as 0.1 + 0.2 - 0.3, and each would cost a forward pass.
    return tuple((term, weight) for term, weight in total.items() if abs(weight) > 1e-9)


def _common_reference(
    base: T, names: Sequence[str], references: Sequence[T], upscale_strength: float, upscale_top_p: float
) -> T:
    candidates = list(references) or [base for _ in names[:1]]
    if len(candidates) == 1:
        return candidates[0]
    setting = (
        f"upscale_strength={upscale_strength}" if upscale_strength != 1 else f"upscale_top_p={upscale_top_p}"
    )
    number = f"{len(candidates)} different ones" if candidates else "none"
    raise RecipeError(
        f"{setting} compares the base with one common reference model, and the behaviors {names} have "
        f"{number}: mix behaviors that share a `reference`, or leave the setting at 1."
    )


@with_kernel("decoding.triton:combine_kernel")
def combine(logits: Tensor, index: Tensor, weights: Tensor, vocabulary: Tensor | None = None) -> Tensor:
    """Weighted sums of logits: log p up to a constant per row, for normalizers cancel.

    Args:
        logits: [N, V], one row for each term and position.
        index: [R, T] int64, the rows of `logits` that each sum takes. A sum of fewer than T rows takes any
            others with weight 0.
        weights: [R, T].
        vocabulary: [V] bool; the sums of other tokens are -inf. None allows all tokens.

    Returns:
        [R, V].
    """
    total = _rows(logits, index[:, 0]).to(weights.dtype) * weights[:, 0, None]
    for i in range(1, index.shape[1]):
        total.addcmul_(_rows(logits, index[:, i]), weights[:, i, None])
    return total if vocabulary is None else total.masked_fill_(~vocabulary, float("-inf"))


def _rows(logits: Tensor, index: Tensor) -> Tensor:
    """`logits[index]`; a view where a CPU sees that the rows are evenly spaced."""
    if takes_shortcuts(logits) and len(index):
        first, *others = rows = index.tolist()
        step = max(1, others[0] - first) if others else 1
        if rows == list(range(first, first + len(rows) * step, step)):
            return logits[first : first + len(rows) * step : step]
    return logits[index]


def conservative(small: Tensor, upscale: Tensor, top_p: Tensor | None, unscaled: Tensor | None) -> Tensor:
    """Up-scale some tokens only; all others get the up-scaling weight 1.

    Args:
        small: [B, V] logits of the small mixture.
        upscale: [B, V] beta (log L - log S), normalized: the weight 1 of some tokens is compared with L / S
            of others.
        top_p: [B] nucleus of the small mixture inside which tokens are up-scaled; None for no such limit.
        unscaled: [B, V] bool, tokens that are never up-scaled, or None.

    Returns:
        [B, V] log p up to a constant per row.
    """
    mixture = small.log_softmax(-1)
    scaled = mixture + upscale
    if unscaled is not None:
        scaled = torch.where(unscaled, mixture, scaled)
    return scaled if top_p is None else torch.where(nucleus(mixture, top_p), scaled, mixture)
