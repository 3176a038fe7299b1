"""One server: continuous batching, chunked prompts, and a prefix cache that forgets what is unused longest.

A simplification: a request is admitted when its whole answer has room, so nothing is preempted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from langchain_eft.diagnostics.plan import Cluster, ServedModel, plan_cluster, prompt_seconds, step_time

MOST_REQUESTS = 128
TOKENS_OF_A_STEP = 2048
"""Tokens of prompts and answers in one step (`max_num_batched_tokens`)."""


@dataclass
class Call:
    """A request in a replica.

    Attributes:
        prefix: What the beginning of its prompt is cached under.
        prefix_tokens: Tokens of this beginning.
        session: What the rest of the conversation is cached under.
        session_tokens: Tokens of the rest of its prompt.
        answer: Tokens of its answer.
        arrival: Seconds at which it arrived.
        cached: Tokens of its prompt that were found in the cache.
        unread: Tokens of its prompt that have still to be read.
        decoded: Tokens of its answer so far.
        first_token: Seconds at which its first token came.
        end: Seconds at which its last token came.
    """

    prefix: Hashable
    prefix_tokens: int
    session: Hashable
    session_tokens: int
    answer: int
    arrival: float
    cached: int = 0
    unread: int = 0
    decoded: int = 0
    first_token: float = 0.0
    end: float = 0.0

    @property
    def prompt(self) -> int:
        """Tokens of its prompt."""
        return self.prefix_tokens + self.session_tokens

    @property
    def length(self) -> int:
        """Tokens with keys and values."""
        return self.prompt - self.unread + self.decoded


class StepCost:
    """Seconds of a step, by the step-time model of `langchain-eft plan --cards`."""

    def __init__(self, models: Sequence[ServedModel], cluster: Cluster) -> None:
        one, two = (step_time(models, cluster, 1, context).attention for context in (1, 2))
        self._seconds_per_position = two - one
        self._models, self._cluster = models, cluster
        self._of_rows = lru_cache(maxsize=None)(lambda rows: prompt_seconds(models, cluster, rows))
        self._of_requests = lru_cache(maxsize=None)(self._sampling)

    def seconds(self, requests: int, positions: int, prompt_tokens: int) -> float:
        """A step in which requests gain a token each, while tokens of prompts are read.

        Args:
            requests: Number of requests that gain a token.
            positions: Tokens of these requests that have keys and values.
            prompt_tokens: Tokens of prompts that are read.
        """
        rows = self._of_rows(requests + prompt_tokens)
        return rows + positions * self._seconds_per_position + self._of_requests(max(requests, 1))

    def _sampling(self, requests: int) -> float:
        time = step_time(self._models, self._cluster, requests, 0)
        return time.logits + time.host


class PrefixCache:
    """What a replica remembers of earlier prompts and answers, in tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._entries: OrderedDict[Hashable, int] = OrderedDict()
        self._pins: dict[Hashable, int] = {}

    def tokens(self, key: Hashable) -> int:
        """Tokens that are cached under a key."""
        return self._entries.get(key, 0)

    def pin(self, key: Hashable, change: int) -> None:
        """Count the requests that use a key; it is kept while there are any."""
        self._pins[key] = self._pins.get(key, 0) + change
        if key in self._entries:
            self._entries.move_to_end(key)

    def reserve(self, tokens: int) -> bool:
        """Make room for tokens by forgetting what was used longest ago. False if there is too little."""
        for key in [key for key in self._entries if not self._pins.get(key)]:
            if self.used + tokens <= self.capacity:
                break
            self.used -= self._entries.pop(key)
        if self.used + tokens > self.capacity:
            return False
        self.used += tokens
        return True

    def keep(self, key: Hashable, tokens: int, reserved: int) -> None:
        """Remember tokens under a key, of which some were reserved. More tokens replace fewer."""
        self.used += max(tokens - self.tokens(key), 0) - reserved
        self._entries[key] = max(tokens, self.tokens(key))
        self._entries.move_to_end(key)


@dataclass
class Replica:
    """A server and its requests.

    Attributes:
        cost: Seconds of its steps.
        cache: Its prefix cache.
        waiting: Requests that wait.
        running: Requests that have room.
        busy: Whether a step is under way.
    """

    cost: StepCost
    cache: PrefixCache
    waiting: deque[Call] = field(default_factory=deque)
    running: list[Call] = field(default_factory=list)
    busy: bool = False

    @classmethod
    def of(cls, models: Sequence[ServedModel], cluster: Cluster) -> Replica:
        """A replica on a cluster, with the memory that the plan leaves for keys and values."""
        plan = plan_cluster(models, cluster, requests=MOST_REQUESTS, context=1)
        return cls(StepCost(models, cluster), PrefixCache(plan.kv_tokens))

    @property
    def load(self) -> int:
        """Requests that wait or run."""
        return len(self.waiting) + len(self.running)

    def admit(self) -> None:
        """Admit requests that wait, the oldest first, while there is room."""
        while self.waiting and len(self.running) < MOST_REQUESTS:
            call = self.waiting[0]
            hit = min(self.cache.tokens(call.prefix), call.prefix_tokens)
            if hit == call.prefix_tokens:
                hit += min(self.cache.tokens(call.session), call.session_tokens)
            hit = min(hit, call.prompt - 1)  # the last token is always read
            self._pin(call, 1)
            if not self.cache.reserve(call.prompt - hit + call.answer):
                self._pin(call, -1)
                return
            call.cached, call.unread = hit, call.prompt - hit
            self.running.append(self.waiting.popleft())

    def plan_step(self) -> tuple[float, list[Call], dict[int, int]]:
        """What the next step does.

        Returns:
            Its seconds, the requests that gain a token, and how many tokens of whose prompt it reads.
        """
        decoding = [call for call in self.running if not call.unread]
        read: dict[int, int] = {}
        budget = TOKENS_OF_A_STEP - len(decoding)
        for i, call in enumerate(self.running):
            if call.unread and budget > 0:
                read[i] = min(call.unread, budget)
                budget -= read[i]
        positions = sum(call.length for call in decoding)
        return self.cost.seconds(len(decoding), positions, sum(read.values())), decoding, read

    def end_step(self, now: float, decoding: list[Call], read: dict[int, int]) -> Iterator[Call]:
        """Do what a step has computed; yields the requests that it ends."""
        gaining = list(decoding)
        for i, tokens in read.items():
            call = self.running[i]
            call.unread -= tokens
            if not call.unread:
                call.first_token = now
                gaining.append(call)
        for call in gaining:
            call.decoded += 1
        ended = [call for call in self.running if call.decoded == call.answer]
        self.running = [call for call in self.running if call.decoded < call.answer]
        for call in ended:
            call.end = now
            self._remember(call)
            yield call

    def _remember(self, call: Call) -> None:
        reserved = call.prompt - call.cached + call.answer
        self.cache.keep(call.prefix, call.prefix_tokens, 0)
        self.cache.keep(call.session, call.session_tokens + call.answer, reserved)
        self._pin(call, -1)

    def _pin(self, call: Call, change: int) -> None:
        self.cache.pin(call.prefix, change)
        self.cache.pin(call.session, change)
