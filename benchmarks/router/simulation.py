"""The events of a simulation: turns arrive, and replicas end their steps."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import mean, quantiles

from benchmarks.router.policies import Policy
from benchmarks.router.replica import Call, Replica
from benchmarks.router.workload import Session


@dataclass(frozen=True)
class Outcome:
    """What clients saw.

    Attributes:
        calls: All requests, each with its times.
    """

    calls: Sequence[Call]

    @property
    def cached(self) -> float:
        """Share of the prompts' tokens that were found in a cache."""
        return sum(call.cached for call in self.calls) / sum(call.prompt for call in self.calls)

    def first_token(self, percent: int) -> float:
        """Seconds from a request to its first token, at a percentile."""
        return quantiles((call.first_token - call.arrival for call in self.calls), n=100)[percent - 1]

    @property
    def between_tokens(self) -> float:
        """Mean seconds between two tokens of an answer."""
        return mean(
            (call.end - call.first_token) / (call.answer - 1) for call in self.calls if call.answer > 1
        )


def simulate(
    sessions: Sequence[Session],
    replicas: Sequence[Replica],
    policy: Policy,
    *,
    shared_prefixes: bool = True,
) -> Outcome:
    """Run all sessions to their ends.

    Args:
        sessions: The sessions.
        replicas: The servers, with nothing cached.
        policy: The router.
        shared_prefixes: Whether sessions of an agent share what is cached of its system prompt. They do
            not where the cache depends on the mixture of a session.

    Raises:
        ValueError: A request is larger than the memory of its replica.
    """
    events: list[tuple[float, int, Callable[[float], None]]] = []
    order = count()
    calls: list[Call] = []
    owners: dict[int, tuple[Session, int]] = {}

    def at(time: float, action: Callable[[float], None]) -> None:
        heapq.heappush(events, (time, next(order), action))

    def arrive(session: Session, turn: int, now: float) -> None:
        before = sum(each.added + each.answer for each in session.turns[:turn])
        call = Call(
            prefix=("agent", session.agent) if shared_prefixes else ("prefix of", session.number),
            prefix_tokens=session.prefix,
            session=("session", session.number),
            session_tokens=before + session.turns[turn].added,
            answer=session.turns[turn].answer,
            arrival=now,
        )
        calls.append(call)
        owners[id(call)] = session, turn
        replica = replicas[policy(call, replicas)]
        replica.waiting.append(call)
        if not replica.busy:
            step(replica, now)

    def step(replica: Replica, now: float) -> None:
        replica.admit()
        replica.busy = bool(replica.running)
        if replica.busy:
            seconds, decoding, read = replica.plan_step()
            at(now + seconds, lambda end: finish(replica, decoding, read, end))

    def finish(replica: Replica, decoding: list[Call], read: dict[int, int], now: float) -> None:
        for call in replica.end_step(now, decoding, read):
            session, turn = owners.pop(id(call))
            if turn + 1 < len(session.turns):
                at(now + session.turns[turn].pause, lambda time, s=session, t=turn + 1: arrive(s, t, time))
        step(replica, now)

    for session in sessions:
        at(session.start, lambda time, s=session: arrive(s, 0, time))
    while events:
        now, _, action = heapq.heappop(events)
        action(now)
    if owners:
        raise ValueError(f"{len(owners)} requests found no room for keys and values: use larger replicas.")
    return Outcome(calls)
