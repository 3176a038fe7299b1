"""Whether a behaviour transfers: the figures that tell, and the verdict that follows from them."""

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
class Agreement:
    """How much the base and the reference are one model.

    Attributes:
        same_first: Share of tokens at which both have one most probable token.
        total_variation: Mean distance of their distributions.
        divergence: Mean KL(L || S), nats.
    """

    same_first: float
    total_variation: float
    divergence: float


@dataclass(frozen=True)
class Delta:
    """What fine-tuning changed.

    Attributes:
        size: Mean of |F - S| on probable tokens, nats.
        total_variation: Mean distance of F and S.
        divergence: Mean KL(F || S), nats.
        entropy: Of p, mean in nats.
        entropy_tuned: Of F.
    """

    size: float
    total_variation: float
    divergence: float
    entropy: float
    entropy_tuned: float


@dataclass(frozen=True)
class Rewards:
    """The implicit reward of answers, `log F - log S` for each token, nats.

    Attributes:
        base: Of the base's own answers.
        eft: Of EFT's.
        tuned: Of the tuned model's own.
    """

    base: float
    eft: float
    tuned: float

    @property
    def gain(self) -> float:
        """What the tuned model's answers gain over the base's."""
        return self.tuned - self.base

    @property
    def recovered(self) -> float:
        """Share of that gain which EFT's answers reach; it may be above 1."""
        return (self.eft - self.base) / self.gain if self.gain else math.nan


@dataclass(frozen=True)
class Endings:
    """Whether answers end by themselves.

    Attributes:
        base: Share of the base's answers that do, within the longest length.
        eft: The same of EFT's.
        tuned: The same of the tuned model's.
        end_base: Probability of an end token under L where the tuned model's answers ended (geometric mean);
            None where none did.
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
class Drafts:
    """What drafting so many tokens ahead would do, one request at a time.

    Attributes:
        length: Tokens drafted in each round; 0 is no drafting.
        tokens_per_round: Expected.
        tokens_per_second: That, over the measured time of such a round; None where nothing was measured.
    """

    length: int
    tokens_per_round: float
    tokens_per_second: float | None


@dataclass(frozen=True)
class Kinship:
    """Distances along the base's own answers, where no behaviour is in the way: mean total variation.

    Attributes:
        base_reference: Of L and S.
        base_tuned: Of L and F.
        tuned_reference: Of F and S.
    """

    base_reference: float
    base_tuned: float
    tuned_reference: float


@dataclass(frozen=True)
class Figures:
    """All that was measured for one behaviour.

    Attributes:
        tokens: Length of all answers together.
        agreement: Of base and reference, along EFT's answers.
        kinship: Of all three, along the base's.
        delta: Along EFT's answers.
        masked: Largest probability of ids that the vocabularies do not have in common.
        endings: How answers end.
        rewards: What the behaviour thinks of answers.
        acceptance: Share of drafts that p would accept, `1 - TV(p, q)`.
        drafts: Speed with drafts.
    """

    tokens: int
    agreement: Agreement
    kinship: Kinship
    delta: Delta
    masked: float
    endings: Endings
    rewards: Rewards
    acceptance: float
    drafts: tuple[Drafts, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Whether one behaviour transfers.

    Attributes:
        behavior: Its name.
        weight: The weight that it was given, by itself.
        verdict: In a word.
        sentence: In a sentence, with the reason.
        figures: What it rests on.
    """

    behavior: str
    weight: float
    verdict: Verdict
    sentence: str
    figures: Figures

    @property
    def transfers(self) -> bool:
        """Whether nothing speaks against using the behaviour."""
        return self.verdict == "transfers"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        recovered = self.figures.rewards.recovered
        return {**asdict(self), "recovered": None if math.isnan(recovered) else recovered}


MASKED = 0.01
"""Probability on ids that not all models know, from which answers are likely to miss a token that matters: at
1 %, every second answer of 70 tokens would."""

STRANGERS = 0.8
"""Total variation of base and reference, along the base's own answers, above which `F - S` says nothing about
the base. Measured on the smol family: 0.46 for its own reference (8 of 30 layers, distilled), 0.61 for a
tuned model in its place, 0.98 with noise of half the weights' size on it, 0.99 for random layers."""

SWAPPED = 0.9
"""Distance of the base to the tuned model, as part of its distance to the reference, below which the base
resembles the tuned model. Measured: 1.00 (tools, harmless) to 1.32 (pirate) for pairs in order, 0.76 for the
pirate pair swapped."""

ALREADY = 0.5
"""Reward of the base's own answers, nats for each token, above which they speak for the tuned model rather
than the reference. Measured: -1.62 to 0.14 for pairs in order, 1.61 for the pirate pair swapped, 0.96 with
the base itself as tuned model, 4.3 with a pirate as base."""

FOREIGN = 0.5
"""Total variation of tuned model and reference, along the base's own answers, above which they are no pair
if even the base is nearer to the reference: fine-tuning leaves plain text mostly alone. Measured: 0.16
(harmless) to 0.38 (pirate) for pairs, 0.60 with the pirate's adapter on a reference with 15 % of noise in its
weights, 0.99 with the adapter on layers that were never distilled."""

WEAK = 0.05
"""Total variation of tuned model and reference below which nobody will see the behaviour: one token in
twenty. Measured: 0.23 (tools, asked for no tools) to 0.72 (pirate), and 0.007 for a fiftieth of the pirate's
adapter."""

UNASKED = 0.05
"""Gain of the tuned model's answers, nats for each token, below which the prompts do not bring the behaviour
out. Measured: 0.26 (tools, asked for no tools) to 5.9 (pirate)."""

TRANSFERRED, IN_PART = 0.6, 0.3
"""Share of the gain that EFT's answers have to recover. Measured: 0.73 (tools) to 1.09 (pirate)."""


def judge(name: str, figures: Figures) -> tuple[Verdict, str]:
    """A verdict and the reason for it: the first thing that is wrong, from the ground up.

    Args:
        name: The behaviour's.
        figures: What was measured.
    """
    kin, rewards, endings = figures.kinship, figures.rewards, figures.endings
    recovered = (
        f"of what the tuned model's own answers gain over the base's, EFT's reach {rewards.recovered:.0%}"
    )
    if figures.masked > MASKED:
        return "vocabularies differ", (
            f"{name!r} will lose tokens: up to {figures.masked:.0%} of the probability is on ids that base, "
            "tuned model and reference do not have in common, and EFT never says those."
        )
    if kin.base_reference > STRANGERS:
        return "base and reference disagree", (
            f"{name!r} will not transfer: base and reference differ by {kin.base_reference:.2f} (total "
            "variation along the base's own answers; 1 is nothing in common), so that what fine-tuning "
            "changed in the one is noise to the other; use a reference of the base's own family."
        )
    if kin.base_tuned < SWAPPED * kin.base_reference and rewards.base > ALREADY:
        return "swapped, or the base is tuned already", (
            f"{name!r} will not transfer as meant: the base resembles the tuned model ({kin.base_tuned:.2f}) "
            f"more than the reference ({kin.base_reference:.2f}); either tuned model and reference are "
            "swapped, or the base is tuned like this already and needs no delta."
        )
    if kin.tuned_reference > max(FOREIGN, kin.base_reference):
        return "not a pair", (
            f"{name!r} will bring more than the behaviour: the tuned model is further from its reference "
            f"({kin.tuned_reference:.2f}, total variation) than the base is ({kin.base_reference:.2f}), so "
            "their difference is not only what fine-tuning changed; name the very model that it was "
            "fine-tuned from as reference."
        )
    if figures.delta.total_variation < WEAK:
        return "hardly any delta", (
            f"{name!r} will hardly show: tuned model and reference differ by only "
            f"{figures.delta.total_variation:.3f} (total variation); a larger weight, or prompts that call "
            "for the behaviour, may show more."
        )
    if rewards.gain < UNASKED:
        return "not asked for", (
            f"Nothing can be said about {name!r} on these prompts: the tuned model's own answers are no more "
            f"its own than the base's (gain {rewards.gain:+.2f} nats a token); give prompts that call for it."
        )
    if rewards.recovered < IN_PART:
        return "does not transfer", (
            f"{name!r} will not transfer: {recovered}; the base outweighs the delta, or the delta hurts it: "
            "try a larger weight, or a reference closer to the base."
        )
    if endings.eft < endings.tuned / 2:
        return "may not stop", (
            f"{name!r} will transfer but may not stop: {endings.tuned:.0%} of the tuned model's answers end "
            f"by themselves and {endings.eft:.0%} of EFT's; where they end, the base gives the end token "
            f"{endings.end_base or 0:.1e} and the tuned model {endings.end_tuned or 0:.2f}: set `stop`."
        )
    if rewards.recovered < TRANSFERRED:
        return "transfers in part", (
            f"{name!r} will transfer in part: {recovered}; try a larger weight, or a reference closer to the "
            "base."
        )
    return "transfers", (
        f"{name!r} will transfer: {recovered}, and base and reference agree well enough (total variation "
        f"{kin.base_reference:.2f} along the base's own answers)."
    )
