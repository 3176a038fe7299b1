"""Whether a behavior transfers to a base: the measured figures, and the verdict that follows from them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal[
    "transfers",
    "transfers in part",
    "does not transfer",
    "may not stop",
    "hardly any delta",
    "not asked for",
    "swapped, or the base is tuned already",
    "not a pair",
    "base and reference disagree",
    "vocabularies differ",
]


@dataclass(frozen=True)
class BaseReferenceAgreement:
    """How similar the base and the reference are, along EFT's answers.

    Attributes:
        same_first: Share of tokens at which both have the same most probable token.
        total_variation: Mean total variation of L and S.
        divergence: Mean KL(L || S), in nats.
    """

    same_first: float
    total_variation: float
    divergence: float


@dataclass(frozen=True)
class BaseDistances:
    """Mean total variations along the base's own answers, which no behavior changes.

    Attributes:
        base_reference: Between L and S.
        base_tuned: Between L and F.
        tuned_reference: Between F and S.
    """

    base_reference: float
    base_tuned: float
    tuned_reference: float


@dataclass(frozen=True)
class DeltaSize:
    """The size of the change that fine-tuning made, along EFT's answers.

    Attributes:
        size: Mean of |F - S| over probable tokens, in nats.
        total_variation: Mean total variation of F and S.
        divergence: Mean KL(F || S), in nats.
        entropy: Mean entropy of p, in nats.
        entropy_tuned: Mean entropy of F, in nats.
    """

    size: float
    total_variation: float
    divergence: float
    entropy: float
    entropy_tuned: float


@dataclass(frozen=True)
class EndingAgreement:
    """How often answers end before the token limit, and how probable the models find the end.

    Attributes:
        base: Share of the base's answers that end.
        eft: Share of EFT's answers that end.
        tuned: Share of the tuned model's answers that end.
        end_base: Probability of an end token under L where the tuned model's answers end (geometric mean);
            None if no answer ends.
        end_tuned: The same under F.
        end_reference: The same under S.
    """

    base: float
    eft: float
    tuned: float
    end_base: float | None
    end_tuned: float | None
    end_reference: float | None


@dataclass(frozen=True)
class Rewards:
    """Implicit rewards of answers: `log F - log S` for each token, in nats.

    Attributes:
        base: Mean reward of the base's answers.
        eft: Mean reward of EFT's answers.
        tuned: Mean reward of the tuned model's answers.
    """

    base: float
    eft: float
    tuned: float

    @property
    def gain(self) -> float:
        """The reward of the tuned model's answers minus that of the base's answers."""
        return self.tuned - self.base

    @property
    def recovered(self) -> float:
        """The share of the gain that EFT's answers have. It may be above 1; without any gain it is NaN."""
        return (self.eft - self.base) / self.gain if self.gain else math.nan


@dataclass(frozen=True)
class DraftSpeed:
    """The speed of one request at a time with a fixed draft length.

    Attributes:
        length: Tokens drafted in each round; 0 is decoding without drafts.
        tokens_per_round: Expected tokens of a round.
        tokens_per_second: Expected tokens over the measured seconds of a round; None if nothing was measured.
    """

    length: int
    tokens_per_round: float
    tokens_per_second: float | None


@dataclass(frozen=True)
class Figures:
    """The figures of one behavior.

    Attributes:
        tokens: Tokens of all answers together.
        agreement: Similarity of base and reference, along EFT's answers.
        base_distances: Distances of all three models, along the base's answers.
        delta: Size of the delta, along EFT's answers.
        masked: Largest probability on ids that the vocabularies do not have in common.
        endings: How answers end.
        rewards: Implicit rewards of the answers.
        acceptance: Share of draft tokens that p accepts, `1 - TV(p, q)`.
        drafts: Speed at each draft length.
    """

    tokens: int
    agreement: BaseReferenceAgreement
    base_distances: BaseDistances
    delta: DeltaSize
    masked: float
    endings: EndingAgreement
    rewards: Rewards
    acceptance: float
    drafts: tuple[DraftSpeed, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on one behavior.

    Attributes:
        behavior: Its name.
        weight: Its weight in the mixture. It was tested alone with this weight.
        verdict: Whether it transfers, or the main reason against it.
        sentence: The verdict with its reason and a remedy.
        figures: The figures that the verdict follows from.
    """

    behavior: str
    weight: float
    verdict: Verdict
    sentence: str
    figures: Figures

    @property
    def transfers(self) -> bool:
        """Whether the behavior transfers without a problem."""
        return self.verdict == "transfers"

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, for JSON."""
        recovered = self.figures.rewards.recovered
        return {**asdict(self), "recovered": None if math.isnan(recovered) else recovered}


MAX_MASKED_PROBABILITY = 0.01
"""Highest probability on ids that not all models have. Above it, answers are likely to lose a token that
matters: at 1 %, every second answer of 70 tokens loses one."""

MAX_BASE_REFERENCE_TV = 0.8
"""Highest total variation of base and reference along the base's own answers. Above it, `F - S` says
nothing about the base. Measured on the smol family: 0.46 for its own reference (8 of 30 layers,
distilled), 0.61 for a tuned model in its place, 0.98 with noise of half the weights' size on it, 0.99 for
random layers."""

MIN_BASE_TUNED_RATIO = 0.9
"""Lowest distance of the base to the tuned model, relative to its distance to the reference. Below it, the
base resembles the tuned model. Measured: 1.00 (tools, harmless) to 1.32 (pirate) for pairs in order, 0.76
for the pirate pair swapped."""

MAX_BASE_REWARD = 0.5
"""Highest reward of the base's own answers, in nats per token. Above it, they resemble the tuned model
more than the reference. Measured: -1.62 to 0.14 for pairs in order, 1.61 for the pirate pair swapped, 0.96
with the base itself as tuned model, 4.3 with a pirate as base."""

MAX_TUNED_REFERENCE_TV = 0.5
"""Highest total variation of tuned model and reference along the base's own answers, because fine-tuning
leaves plain text mostly alone. Above it, the two are not a pair, if the base is nearer to the reference.
Measured: 0.16 (harmless) to 0.38 (pirate) for pairs, 0.60 with the pirate's adapter on a reference with 15
% of noise in its weights, 0.99 with the adapter on layers that were never distilled."""

MIN_DELTA_TV = 0.05
"""Lowest total variation of tuned model and reference. Below it, the behavior changes less than one token
in twenty. Measured: 0.23 (tools, on prompts without tools) to 0.72 (pirate), and 0.007 for a fiftieth of
the pirate's adapter."""

MIN_REWARD_GAIN = 0.05
"""Lowest gain of the tuned model's answers, in nats per token. Below it, the prompts do not call for the
behavior. Measured: 0.26 (tools, on prompts without tools) to 5.9 (pirate)."""

MIN_RECOVERED, MIN_RECOVERED_IN_PART = 0.6, 0.3
"""Lowest share of the gain that EFT's answers recover, for a transfer and for a transfer in part.
Measured: 0.73 (tools) to 1.09 (pirate)."""


def judge(name: str, figures: Figures) -> tuple[Verdict, str]:
    """Find the verdict on a behavior, and the reason for it.

    Problems of the models come first, then problems of the prompts, then those of the answers. The first
    problem decides.

    Args:
        name: The name of the behavior.
        figures: Its figures.
    """
    return _problem_of_models(name, figures) or _problem_of_prompts(name, figures) or _transfer(name, figures)


def _problem_of_models(name: str, figures: Figures) -> tuple[Verdict, str] | None:
    distances = figures.base_distances
    if figures.masked > MAX_MASKED_PROBABILITY:
        return "vocabularies differ", (
            f"{name!r} loses tokens: up to {figures.masked:.0%} of the probability is on ids that base, "
            "tuned model and reference do not have in common, and EFT never draws those ids. Use models of "
            "one family."
        )
    if distances.base_reference > MAX_BASE_REFERENCE_TV:
        return "base and reference disagree", (
            f"{name!r} does not transfer: base and reference differ by {distances.base_reference:.2f} (total "
            "variation along the base's own answers; 1 is the highest), so a change of the reference says "
            "nothing about the base. Use a reference of the base's own family."
        )
    resembles_tuned = distances.base_tuned < MIN_BASE_TUNED_RATIO * distances.base_reference
    if resembles_tuned and figures.rewards.base > MAX_BASE_REWARD:
        return "swapped, or the base is tuned already", (
            f"{name!r} does not transfer: the base is nearer to the tuned model ({distances.base_tuned:.2f}) "
            f"than to the reference ({distances.base_reference:.2f}). Either tuned model and reference are "
            "swapped, or the base already has the behavior and needs no delta."
        )
    if distances.tuned_reference > max(MAX_TUNED_REFERENCE_TV, distances.base_reference):
        return "not a pair", (
            f"{name!r} changes more than the behavior: the tuned model is further from its reference "
            f"({distances.tuned_reference:.2f}, total variation) than the base is "
            f"({distances.base_reference:.2f}), so fine-tuning alone does not explain the difference. Use "
            "the model that it was fine-tuned from as the reference."
        )
    return None


def _problem_of_prompts(name: str, figures: Figures) -> tuple[Verdict, str] | None:
    if figures.delta.total_variation < MIN_DELTA_TV:
        return "hardly any delta", (
            f"{name!r} hardly changes the answers: tuned model and reference differ by only "
            f"{figures.delta.total_variation:.3f} (total variation). Try a larger weight, or prompts that "
            "call for the behavior."
        )
    if figures.rewards.gain < MIN_REWARD_GAIN:
        return "not asked for", (
            f"These prompts do not show whether {name!r} transfers: the tuned model's answers gain only "
            f"{figures.rewards.gain:+.2f} nats per token over the base's answers. Use prompts that call for "
            "it."
        )
    return None


def _transfer(name: str, figures: Figures) -> tuple[Verdict, str]:
    rewards, endings = figures.rewards, figures.endings
    recovered = f"EFT's answers recover {rewards.recovered:.0%} of the gain of the tuned model's answers"
    if rewards.recovered < MIN_RECOVERED_IN_PART:
        return "does not transfer", (
            f"{name!r} does not transfer: {recovered}. The base outweighs the delta, or the delta hurts the "
            "base. Try a larger weight, or a reference nearer to the base."
        )
    if endings.eft < endings.tuned / 2:
        return "may not stop", (
            f"{name!r} transfers but may not stop: {endings.tuned:.0%} of the tuned model's answers end "
            f"before the token limit, and {endings.eft:.0%} of EFT's answers do. Where they end, the end "
            f"token has probability {endings.end_base or 0:.1e} under the base and "
            f"{endings.end_tuned or 0:.2f} under the tuned model. Set `stop`."
        )
    if rewards.recovered < MIN_RECOVERED:
        return "transfers in part", (
            f"{name!r} transfers in part: {recovered}. Try a larger weight, or a reference nearer to the "
            "base."
        )
    return "transfers", (
        f"{name!r} transfers: {recovered}, and base and reference are similar enough (total variation "
        f"{figures.base_distances.base_reference:.2f} along the base's own answers)."
    )
