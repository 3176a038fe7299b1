"""Sessions of agents. Each turn sends the whole conversation again, and adds to it."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """A call of the model.

    Attributes:
        added: Tokens that the user or a tool adds to the conversation before the call.
        answer: Tokens of the answer.
        pause: Seconds after the answer until the next turn: the tool runs, or the user reads.
    """

    added: int
    answer: int
    pause: float


@dataclass(frozen=True)
class Session:
    """A conversation.

    Attributes:
        number: Its place among all sessions.
        start: Seconds at which its first turn arrives.
        agent: Which agent it runs. All sessions of an agent begin with the same tokens.
        prefix: Number of these tokens: the system prompt and the tools.
        turns: Its turns.
    """

    number: int
    start: float
    agent: int
    prefix: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Workload:
    """What sessions are like. All times are exponential, all sizes log-normal.

    Attributes:
        sessions_per_second: Mean arrivals.
        seconds: Time in which sessions arrive.
        agents: Number of different agents. Some are more popular than others.
        prefix: Tokens of an agent's system prompt and tools, the median.
        added: Tokens that a turn adds, the median.
        answer: Tokens of an answer, the median.
        turns: Mean number of turns.
        pause: Mean seconds between an answer and the next turn.
    """

    sessions_per_second: float
    seconds: float = 240.0
    agents: int = 8
    prefix: int = 3000
    added: int = 400
    answer: int = 120
    turns: int = 8
    pause: float = 4.0

    def sessions(self, seed: int) -> list[Session]:
        """All sessions by their start. Equal seeds give equal sessions."""
        rng = random.Random(seed)
        prefixes = [_size(rng, self.prefix) for _ in range(self.agents)]
        popularity = [1 / (rank + 1) for rank in range(self.agents)]
        sessions: list[Session] = []
        start = rng.expovariate(self.sessions_per_second)
        while start < self.seconds:
            (agent,) = rng.choices(range(self.agents), popularity)
            count = 1 + int(rng.expovariate(1 / self.turns))
            turns = tuple(self._turn(rng) for _ in range(count))
            sessions.append(Session(len(sessions), start, agent, prefixes[agent], turns))
            start += rng.expovariate(self.sessions_per_second)
        return sessions

    def _turn(self, rng: random.Random) -> Turn:
        return Turn(_size(rng, self.added), _size(rng, self.answer), rng.expovariate(1 / self.pause))


def _size(rng: random.Random, median: int) -> int:
    return max(1, round(median * rng.lognormvariate(0, 0.6)))
