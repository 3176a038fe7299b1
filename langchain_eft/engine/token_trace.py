"""What a request may learn about each of its tokens. The tensors behind it are in `attribution`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shift:
    """How p differs from another distribution.

    Attributes:
        total_variation: Half the sum of all differences: 0 where they are the same, 1 where disjoint.
        up: The token whose probability is raised most, and by how much.
        down: The token whose probability is lowered most, and by how much (negative).
    """

    total_variation: float
    up: tuple[int, float]
    down: tuple[int, float]


@dataclass(frozen=True)
class BehaviorTrace:
    """One behaviour's part in a token.

    Attributes:
        weight: w_i at this position.
        tuned: log F_i of the token.
        reference: log S_i of the token.
        shift: p against p without this behaviour.
    """

    weight: float
    tuned: float
    reference: float
    shift: Shift


@dataclass(frozen=True)
class TokenTrace:
    """How p came about at one position of an answer.

    Attributes:
        logprob: log p of the token that was drawn.
        base: log L of it.
        small: The same under the small mixture; None where no small model takes part.
        from_base: p against L: what the behaviours changed.
        from_small: p against the small mixture: what the large model changed. None as for `small`.
        behaviors: Each behaviour's part.
    """

    logprob: float
    base: float
    small: float | None
    from_base: Shift
    from_small: Shift | None
    behaviors: dict[str, BehaviorTrace]
