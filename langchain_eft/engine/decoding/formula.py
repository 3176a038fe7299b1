"""The decoding formula as tensors.

    log p = beta * L + sum_i w_i F_i - (beta - 1 + sum_i w_i) S          (Mitchell et al. 2023, eq. 4 and 7)

with L the large base, S the small reference, F_i the small tuned models. Read as two parts, it is the small
mixture `S + sum_i w_i (F_i - S)` times the up-scaling weight `(L / S) ** beta`.

That weight is 1 where L / S should not count: outside the small mixture's nucleus (section 3.2 there,
conservative decoding), and for special tokens of the tuned models' template that the base was never trained
on, whose probabilities in L and S are both noise. Where behaviours have references of their own, S is the
mean of their log-probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.schedules import Weight, knots, values, weight_at

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Coefficients(Generic[T]):
    """The formula at one position of an answer: coefficients of terms, none of which is zero.

    Attributes:
        target: Of each term's log-probabilities in log p.
        small: The same for the small mixture, or None where every token has the same up-scaling weight.
        upscale: The same for the logarithm of that weight, `beta (L - S)`, or None with `small`.
        draft: Of the draft distribution q, or None where no part of the formula could foretell the whole.
    """

    target: tuple[tuple[T, float], ...]
    small: tuple[tuple[T, float], ...] | None
    upscale: tuple[tuple[T, float], ...] | None
    draft: tuple[tuple[T, float], ...] | None


@dataclass(frozen=True)
class Drafter(Generic[T]):
    """What the draft distribution is made of.

    Attributes:
        term: Its first term.
        mixed: Whether the weighted behaviours are added to it.
    """

    term: T
    mixed: bool


@dataclass(frozen=True)
class Formula(Generic[T]):
    """The formula of one request. Its terms are variants of models, each over one of the request's contexts.

    Attributes:
        base: The term of L.
        behaviors: F_i, S_i and w_i of the behaviours that take part.
        smalls: The distinct S_i, each over the base's text; the base is none of them.
        reference: The term of S, or None where beta and `top_p` need none.
        strength: beta.
        top_p: Nucleus of the small mixture inside which up-scaling acts.
        drafter: Who drafts, or None.
        unscaled: Whether there are tokens that follow the small mixture alone.
        traced: Whether a row also runs parts of the formula that cancel out.
    """

    base: T
    behaviors: tuple[tuple[T, T, Weight], ...]
    smalls: tuple[T, ...]
    reference: T | None
    strength: float
    top_p: float
    drafter: Drafter[T] | None = None
    unscaled: bool = False
    traced: bool = False

    @cached_property
    def references(self) -> tuple[T, ...]:
        """The terms whose mean is S; none where no S is needed."""
        if self.reference is not None:
            return (self.reference,)
        return self.smalls if self.unscaled else ()

    @property
    def origins(self) -> tuple[T, ...]:
        """The terms whose mean the small mixture starts from; none where the base is all that there is."""
        return self.references or self.smalls

    @property
    def conservative(self) -> bool:
        """Whether some tokens are up-scaled and others are not, which does not depend on the position."""
        return self.at(0).small is not None

    def at(self, position: int) -> Coefficients[T]:
        """The coefficients with which the answer's token number `position`, from 0, is drawn."""
        weights = tuple(weight_at(weight, position) for _, _, weight in self.behaviors)
        if weights not in self._known:
            self._known[weights] = self._with(weights)
        return self._known[weights]

    @cached_property
    def terms(self) -> tuple[T, ...]:
        """Every term that an answer runs, in a fixed order; each runs at every position."""
        found = [self.at(position) for position in self._knots]
        sums = [total for c in found for total in (c.target, c.small or (), c.upscale or ())]
        ordered = dict.fromkeys(term for total in sums for term, _ in total)
        if self.traced:
            pairs = (term for *pair, _ in self.behaviors for term in pair)
            ordered |= dict.fromkeys([self.base, *self.origins, *pairs])
        return tuple(ordered)

    @cached_property
    def draft_terms(self) -> tuple[T, ...]:
        """The terms that draft, in a fixed order, some perhaps with coefficient 0 here or there."""
        return tuple(dict.fromkeys(t for knot in self._knots for t, _ in self.at(knot).draft or ()))

    @cached_property
    def _knots(self) -> list[int]:
        # Between them all weights are linear: a coefficient that is zero at both ends is zero in between.
        return sorted({0, *(knot for *_, weight in self.behaviors for knot in knots(weight))})

    @cached_property
    def _known(self) -> dict[tuple[float, ...], Coefficients[T]]:
        return {}

    def _with(self, weights: tuple[float, ...]) -> Coefficients[T]:
        delta: Counter[T] = Counter()
        for (tuned, reference, _), weight in zip(self.behaviors, weights, strict=True):
            delta[tuned] += weight  # type: ignore[assignment]
            delta[reference] -= weight  # type: ignore[assignment]
        target = [(self.base, self.strength), *delta.items()]
        if self.reference is not None:
            target.append((self.reference, 1 - self.strength))
        mean = [(reference, 1 / len(self.references)) for reference in self.references]
        small = upscale = draft = None
        if mean and (self.unscaled or self.top_p < 1):
            upscale = _total(
                [(self.base, self.strength), *((r, -self.strength * share) for r, share in mean)]
            )
            small = _total([*mean, *delta.items()]) if upscale else None
        if self.drafter is not None:
            draft = _total([(self.drafter.term, 1.0), *(delta.items() if self.drafter.mixed else ())])
        return Coefficients(_total(target), small, upscale or None, draft)


def build_formula(
    base: T,
    behaviors: Mapping[str, tuple[T, T]],
    weights: Mapping[str, Weight],
    strength: float = 1.0,
    top_p: float = 1.0,
    size: Callable[[T], float] = lambda _: 1.0,
    main: Callable[[T], T] = lambda term: term,
    *,
    unscaled: bool = False,
) -> Formula[T]:
    """Write a mixture as a formula of terms.

    Args:
        base: The term of L.
        behaviors: Terms of F_i and S_i of every behaviour that the recipe knows.
        weights: w_i of the behaviours that take part.
        strength: beta.
        top_p: Nucleus for conservative decoding.
        size: How expensive a term is to run.
        main: The term of the same model that reads the base's text.
        unscaled: Whether there are tokens that the base was never trained on; they are the tuned models', so
            without behaviours they do not matter.

    Raises:
        RecipeError: beta or top_p need one common reference and the behaviours have none or several.
    """
    names, reference = list(weights) or list(behaviors), None
    # A behaviour that compares the base with itself (a prompt) says nothing about which model is small.
    smalls = tuple(dict.fromkeys(s for name in names if (s := main(behaviors[name][1])) != base))
    if strength != 1 or top_p < 1:
        reference = _common_reference(base, names, smalls, strength, top_p)
    pairs = tuple((*behaviors[name], weight) for name, weight in weights.items())
    smalls = smalls if pairs else ()
    formula = Formula(base, pairs, smalls, reference, strength, top_p, unscaled=unscaled and bool(pairs))
    for drafter in _drafters(formula, size):
        candidate = replace(formula, drafter=drafter)
        # A draft costs nothing extra only if the formula runs its terms anyway.
        if set(candidate.draft_terms) < set(candidate.terms):
            return candidate
    return formula


def _drafters(formula: Formula[T], size: Callable[[T], float]) -> Iterable[Drafter[T]]:
    """Who could draft, best first.

    A base that is smaller than its tuned models (down-scaling), else the small mixture (for one behaviour at
    weight 1 the tuned model), else the weightiest tuned model, smaller ones before those of the base's size.
    """
    base = formula.base
    if formula.behaviors and all(size(base) < size(tuned) for tuned, *_ in formula.behaviors):
        yield Drafter(base, mixed=False)
    reference = next(iter(formula.smalls), formula.reference)
    if len(formula.smalls) < 2 and reference is not None:
        small = Drafter(reference, mixed=True)
        if base not in replace(formula, drafter=small).draft_terms:
            yield small
    tuned = [
        (size(term) < size(base), max(values(w)), term) for term, _, w in formula.behaviors if term != base
    ]
    if tuned:
        yield Drafter(max(tuned, key=lambda candidate: candidate[:2])[2], mixed=False)


def _total(summands: Iterable[tuple[T, float]]) -> tuple[tuple[T, float], ...]:
    total: Counter[T] = Counter()
    for term, weight in summands:
        total[term] += weight  # type: ignore[assignment]
    # Sums such as 0.1 + 0.2 - 0.3 leave dust that would cost a whole forward pass. (All of target sum to 1.)
    return tuple((term, weight) for term, weight in total.items() if abs(weight) > 1e-9)


def _common_reference(base: T, names: Sequence[str], smalls: Sequence[T], strength: float, top_p: float) -> T:
    references = list(smalls) or [base for _ in names[:1]]
    if len(references) == 1:
        return references[0]
    setting = f"upscale_strength={strength}" if strength != 1 else f"upscale_top_p={top_p}"
    found = f"{len(references)} different ones" if references else "none"
    raise RecipeError(
        f"{setting} compares the base with one common reference model, and the behaviours "
        f"{names} have {found}: mix behaviours that share a `reference`, or leave the setting at 1."
    )


def combine(logits: Tensor, index: Tensor, weights: Tensor, vocabulary: Tensor | None = None) -> Tensor:
    """Weighted sums of logits: log p up to a constant per row, since normalisers cancel.

    Args:
        logits: [N, V] one row per term and position.
        index: [R, T] int64, which rows each sum takes; any, with weight 0, where it takes fewer than T.
        weights: [R, T].
        vocabulary: [V] bool; the sums of other tokens are -inf. None for all tokens.

    Returns:
        [R, V].
    """
    total = logits[index[:, 0]] * weights[:, 0, None]
    for i in range(1, index.shape[1]):
        total = torch.addcmul(total, logits[index[:, i]], weights[:, i, None])
    return total if vocabulary is None else total.masked_fill(~vocabulary, float("-inf"))


def nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """The smallest set of tokens whose probability reaches `top_p` (the most probable always counts).

    Args:
        logprobs: [B, V] normalised log-probabilities.
        top_p: [B] in (0, 1].

    Returns:
        [B, V] bool.
    """
    ordered, order = _most_probable(logprobs, top_p)
    probs = ordered.double().exp()
    # Probability before each token: the one that crosses the threshold is kept. All means all, whatever the
    # rounding of the sum.
    keep = probs.cumsum(-1) - probs < top_p[:, None]
    inside = torch.zeros_like(logprobs, dtype=torch.bool).scatter(-1, order, keep)
    return inside | (top_p[:, None] >= 1)


_PREFIX = 1024


def _most_probable(logprobs: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable tokens in order, at least as many as reach `top_p`, with their ids."""
    if logprobs.device.type == "cpu" and logprobs.shape[-1] > _PREFIX:
        # On a CPU, sorting a whole vocabulary takes as long as a small model.
        ordered, order = logprobs.topk(_PREFIX, -1)
        if bool((ordered.double().exp().sum(-1) > top_p).all()):
            return ordered, order
    return logprobs.sort(-1, descending=True)


def conservative(small: Tensor, upscale: Tensor, top_p: Tensor | None, unscaled: Tensor | None) -> Tensor:
    """Up-scale some tokens only; for all others the up-scaling weight is 1.

    Args:
        small: [B, V] logits of the small mixture.
        upscale: [B, V] beta (log L - log S). Here the normalisers do matter: the weight 1 of some tokens is
            compared with L / S of others.
        top_p: [B] nucleus of the small mixture inside which up-scaling acts; None for everywhere.
        unscaled: [B, V] bool, tokens that are not up-scaled wherever they are; None for none.

    Returns:
        [B, V] log p up to a constant per row.
    """
    mixture = small.log_softmax(-1)
    scaled = mixture + upscale
    if unscaled is not None:
        scaled = torch.where(unscaled, mixture, scaled)
    return scaled if top_p is None else torch.where(nucleus(mixture, top_p), scaled, mixture)
