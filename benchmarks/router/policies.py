"""Ways to choose the replica of a request.

A router knows what it has sent where, and how many requests of each replica have not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import count

from benchmarks.router.replica import Call, Replica

Policy = Callable[[Call, Sequence[Replica]], int]
"""Returns the number of the replica that a request goes to."""

SLACK = 8
"""How many more requests than the least loaded replica one may have and still be chosen for its prefix."""


def round_robin() -> Policy:
    """One replica after the other."""
    numbers = count()
    return lambda _, replicas: next(numbers) % len(replicas)


def least_loaded() -> Policy:
    """The replica with the fewest requests."""
    return lambda _, replicas: min(range(len(replicas)), key=lambda i: replicas[i].load)


def prefix_affinity() -> Policy:
    """The replica that has seen most of the prompt, unless it has many more requests than another."""
    seen: dict[Hashable, set[int]] = {}

    def choose(call: Call, replicas: Sequence[Replica]) -> int:
        least = min(replica.load for replica in replicas)

        def order(i: int) -> tuple[bool, bool, bool, int]:
            overloaded = replicas[i].load > least + SLACK
            return (
                overloaded, i not in seen.get(call.session, ()), i not in seen.get(call.prefix, ()),
                replicas[i].load,
            )  # fmt: skip

        chosen = min(range(len(replicas)), key=order)
        seen[call.session] = {chosen}  # what an older replica has is shorter
        seen.setdefault(call.prefix, set()).add(chosen)
        return chosen

    return choose


POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": round_robin,
    "least loaded": least_loaded,
    "prefix affinity": prefix_affinity,
}
