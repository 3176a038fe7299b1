"""The decoding formula as tensors.

    log p = beta * L + sum_i w_i F_i - (beta - 1 + sum_i w_i) S          (Mitchell et al. 2023, eq. 4 and 7)

with L the large base, S the small reference, F_i the small tuned models. Read as two parts, it is the small
mixture `S + sum_i w_i (F_i - S)` times the up-scaling weight `(L / S) ** beta`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from langchain_eft.engine.errors import RecipeError

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Formula(Generic[T]):
    """The formula of one request, as coefficients of its terms (models or adapters).

    Attributes:
        target: Coefficient of each term's log-probabilities in log p; none is zero.
        small: The same for the small mixture, or None where `top_p` is 1 and nobody needs it.
        base: The term of L.
        reference: The term of S, or None where none is needed.
        strength: beta.
        top_p: Nucleus of the small mixture inside which up-scaling acts.
        draft: Coefficients of the draft distribution q, made of small terms of `target` only; None where no
            small part of the formula could foretell the whole.
        behaviors: F_i, S_i and w_i of the behaviours that take part.
        traced: Whether a row also runs parts of the formula that cancel out.
    """

    target: tuple[tuple[T, float], ...]
    small: tuple[tuple[T, float], ...] | None
    base: T
    reference: T | None
    strength: float
    top_p: float
    draft: tuple[tuple[T, float], ...] | None
    behaviors: tuple[tuple[T, T, float], ...]
    traced: bool = False

    @property
    def terms(self) -> tuple[T, ...]:
        """Every term that a row has to run, in a fixed order."""
        conservative = () if self.small is None else (self.base, self.reference, *(t for t, _ in self.small))
        parts = (self.base, self.reference, *(t for *pair, _ in self.behaviors for t in pair))
        traced = parts if self.traced else ()
        ordered = dict.fromkeys([*(t for t, _ in self.target), *conservative, *traced])
        return tuple(term for term in ordered if term is not None)


def plan(
    base: T,
    behaviors: Mapping[str, tuple[T, T]],
    weights: Mapping[str, float],
    strength: float = 1.0,
    top_p: float = 1.0,
) -> Formula[T]:
    """Write a mixture as coefficients.

    Args:
        base: The term of L.
        behaviors: Terms of F_i and S_i of every behaviour that the recipe knows.
        weights: w_i of the behaviours that take part.
        strength: beta.
        top_p: Nucleus for conservative decoding.

    Raises:
        RecipeError: beta or top_p need one common reference and the behaviours have none or several.
    """
    reference = None
    if strength != 1 or top_p < 1:
        reference = _common_reference(behaviors, weights, strength, top_p)
    delta: Counter[T] = Counter()
    for name, weight in weights.items():
        tuned, own_reference = behaviors[name]
        delta[tuned] += weight  # type: ignore[assignment]
        delta[own_reference] -= weight  # type: ignore[assignment]
    target = Counter({base: strength})
    for term, weight in delta.items():
        target[term] += weight
    if reference is not None:
        target[reference] += 1 - strength  # type: ignore[assignment]
    return Formula(
        target=_nonzero(target),
        small=_mixture(delta, reference) if reference is not None and top_p < 1 else None,
        base=base,
        reference=reference,
        strength=strength,
        top_p=top_p,
        draft=_draft(base, behaviors, weights, delta, dict(_nonzero(target)), reference),
        behaviors=tuple((*behaviors[name], weight) for name, weight in weights.items()),
    )


def _mixture(delta: Mapping[T, float], reference: T) -> tuple[tuple[T, float], ...]:
    """The small mixture `S + sum_i w_i (F_i - S)`."""
    small = Counter(delta)
    small[reference] += 1
    return _nonzero(small)


def _draft(
    base: T,
    behaviors: Mapping[str, tuple[T, T]],
    weights: Mapping[str, float],
    delta: Mapping[T, float],
    target: Mapping[T, float],
    reference: T | None,
) -> tuple[tuple[T, float], ...] | None:
    """The small mixture (for one behaviour at weight 1 the tuned model), else the weightiest tuned model.

    A draft costs nothing extra only if the formula runs its terms anyway, and it foretells something only if
    it leaves out the base.
    """
    candidates: list[tuple[tuple[T, float], ...]] = []
    references = {behaviors[name][1] for name in weights}
    common = references.pop() if references else reference
    if not references and common is not None:
        candidates.append(_mixture(delta, common))
    if weights:
        weightiest = max(weights, key=lambda name: weights[name])
        candidates.append(((behaviors[weightiest][0], 1.0),))
    for candidate in candidates:
        terms = {term for term, _ in candidate}
        if terms < set(target) and base not in terms:
            return candidate
    return None


def _nonzero(coefficients: Mapping[T, float]) -> tuple[tuple[T, float], ...]:
    # Sums such as 0.1 + 0.2 - 0.3 leave dust that would cost a whole forward pass. (All of target sum to 1.)
    return tuple((term, weight) for term, weight in coefficients.items() if abs(weight) > 1e-9)


def _common_reference(
    behaviors: Mapping[str, tuple[T, T]],
    weights: Mapping[str, float],
    strength: float,
    top_p: float,
) -> T:
    names = list(weights) or list(behaviors)
    references = {behaviors[name][1] for name in names}
    if len(references) == 1:
        return references.pop()
    setting = f"upscale_strength={strength}" if strength != 1 else f"upscale_top_p={top_p}"
    found = f"{len(references)} different ones" if references else "none"
    raise RecipeError(
        f"{setting} compares the base with one common reference model, and the behaviours "
        f"{names} have {found}: mix behaviours that share a `reference`, or leave the setting at 1."
    )


def combine(logits: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of logits: log p up to a constant per row, since normalisers cancel.

    Args:
        logits: [N, V] one row per term and position.
        index: [R, T] int64, which rows each sum takes; any, with weight 0, where it takes fewer than T.
        weights: [R, T].

    Returns:
        [R, V].
    """
    total = logits[index[:, 0]] * weights[:, 0, None]
    for i in range(1, index.shape[1]):
        total = torch.addcmul(total, logits[index[:, i]], weights[:, i, None])
    return total


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


def conservative(small: Tensor, base: Tensor, reference: Tensor, strength: Tensor, top_p: Tensor) -> Tensor:
    """Up-scale only inside the small mixture's nucleus; outside, the up-scaling weight is 1.

    Args:
        small: [B, V] logits of the small mixture.
        base: [B, V] logits of L.
        reference: [B, V] logits of S.
        strength: [B] beta.
        top_p: [B].

    Returns:
        [B, V] log p up to a constant per row.
    """
    mixture = small.log_softmax(-1)
    # Here the normalisers do matter: the weight 1 outside is compared with L / S inside.
    upscale = strength[:, None] * (base.log_softmax(-1) - reference.log_softmax(-1))
    return torch.where(nucleus(mixture, top_p), mixture + upscale, mixture)
