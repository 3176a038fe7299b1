"""The trace of a token: what every model contributes to it. `analysis.attribution` computes traces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shift:
    """How p differs from another distribution.

    Attributes:
        total_variation: Half the sum of absolute differences: 0 for equal distributions, 1 for disjoint ones.
        up: The token whose probability is raised most, and by how much.
        down: The token whose probability is lowered most, and by how much (negative).
    """

    total_variation: float
    up: tuple[int, float]
    down: tuple[int, float]


@dataclass(frozen=True)
class BehaviorTrace:
    """The part of one behavior in a token.

    Attributes:
        weight: w_i at this position.
        tuned: log F_i of the token.
        reference: log S_i of the token.
        shift: How p differs from p without this behavior.
        opened: Whether the weight's gate was open; None for a weight without a gate.
    """

    weight: float
    tuned: float
    reference: float
    shift: Shift
    opened: bool | None = None


@dataclass(frozen=True)
class TokenTrace:
    """How the formula makes up p at one position of an answer.

    Attributes:
        logprob: log p of the token that was drawn.
        base: log L of the token.
        small: Its log-probability under the small mixture; None where no small model takes part.
        from_base: How p differs from L: what the behaviors change.
        from_small: How p differs from the small mixture: what the large model changes. None where `small` is.
        behaviors: The part of each behavior, by name.
    """

    logprob: float
    base: float
    small: float | None
    from_base: Shift
    from_small: Shift | None
    behaviors: dict[str, BehaviorTrace]
