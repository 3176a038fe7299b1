"""An engine without models: it says what its script says, under real grammars, with the real bookkeeping."""

import asyncio
import json
from collections.abc import Callable
from itertools import takewhile
from types import SimpleNamespace

from transformers import AddedToken

from langchain_eft.engine.engine import EngineStats
from langchain_eft.engine.errors import ContextWindowError
from langchain_eft.engine.grammar import Grammars
from langchain_eft.engine.request import Generation, TokenLogprobs
from langchain_eft.engine.sequence import Sequence
from unit_tests import tiny

BURST = 4
"""Tokens per round, as if three drafts were right every time."""

Script = Callable[[str], list[str]]
"""From a prompt to what may be said to it; the first that the grammar admits is said."""


class ScriptedEngine:
    """What `EFTChatModel` and `EFTLLM` use of an engine.

    Where the grammar admits nothing of the script, the answer is the shortest way to its end.
    """

    def __init__(self, script: Script, chat_template: str, tags: tuple[str, ...] = (), window: int = 8192):
        self.tokenizer = tiny.tokenizer()
        self.tokenizer.add_tokens([AddedToken(tag, special=False) for tag in tags])
        self.tokenizer.chat_template = chat_template
        self.window = window
        self.rounds = 0
        self._script = script
        self._end = self.tokenizer.eos_token_id
        self._grammars = Grammars(self.tokenizer, len(self.tokenizer), {self._end})
        self._read: list[list[int]] = []
        self._running = self._generated = 0

    def stats(self) -> EngineStats:
        idle = dict.fromkeys(EngineStats.__dataclass_fields__, 0)
        return EngineStats(**{**idle, "running": self._running, "generated_tokens": self._generated})

    def stream(self, request, timeout=None):
        sequence, events = self._begin(request)
        try:
            while not sequence.finished:
                self._round(sequence)
                yield from events
                events.clear()
        finally:
            self._running -= 1

    async def astream(self, request, timeout=None):
        sequence, events = self._begin(request)
        try:
            while not sequence.finished:
                await asyncio.sleep(0)
                self._round(sequence)
                for event in events:
                    yield event
                events.clear()
        finally:
            self._running -= 1

    def generate(self, requests, timeout=None):
        return [list(self.stream(request, timeout)) for request in requests]

    async def agenerate(self, requests, timeout=None):
        return [[event async for event in self.astream(request, timeout)] for request in requests]

    def _begin(self, request) -> tuple[Sequence, list]:
        if len(request.prompt_ids) + request.max_tokens > self.window:
            raise ContextWindowError(len(request.prompt_ids), request.max_tokens, self.window)
        events: list = []
        grammar = self._grammars.compile(request.grammar) if request.grammar else None
        generation = Generation(request, events.append)
        sequence = Sequence(
            generation, SimpleNamespace(terms=()), self.tokenizer, frozenset({self._end}), None, grammar
        )
        sequence.cached_tokens = max((_shared(request.prompt_ids, read) for read in self._read), default=0)
        self._running += 1
        sequence.said = self._choose(request)
        return sequence, events

    def _choose(self, request) -> list[int]:
        """The first scripted answer that the grammar admits as a whole, else the longest beginning of one."""
        scripted = [
            self.tokenizer(answer).input_ids
            for answer in self._script(self.tokenizer.decode(request.prompt_ids))
        ]
        if request.grammar is None:
            return scripted[0]
        admitted = [self._admitted(request.grammar, [*ids, self._end]) for ids in scripted]
        whole = (ids for ids in admitted if ids[-1:] == [self._end])
        return next(whole, max(admitted, key=len))

    def _admitted(self, grammar: str, ids: list[int]) -> list[int]:
        """The longest beginning that the grammar admits."""
        state = self._grammars.compile(grammar)
        for length, token in enumerate(ids):
            if not state.mask()[token]:
                return ids[:length]
            state.consume(token)
        return ids

    def _round(self, sequence: Sequence) -> None:
        self.rounds += 1
        request = sequence.generation.request
        tokens: list[int] = []
        while len(tokens) < min(BURST, sequence.room) and self._end not in tokens:
            at = len(sequence.tokens) + len(tokens) - len(request.prompt_ids)
            scripted = sequence.said[at] if at < len(sequence.said) else self._end
            allowed = sequence.grammar.mask(tokens) if sequence.grammar else None
            tokens.append(scripted if allowed is None or allowed[scripted] else self._shortest(allowed))
        reported = request.top_logprobs is not None
        logprobs = [
            TokenLogprobs(-0.5, ((token, -0.5),) * request.top_logprobs) for token in tokens if reported
        ]
        self._generated += sequence.accept(tokens, len(tokens) - 1, logprobs)
        sequence.deliver()
        if sequence.finished:
            self._read.append(sequence.tokens)

    def _shortest(self, allowed) -> int:
        """A token that leads to the end: closing ones first."""
        closing = [self._end, *self.tokenizer.convert_tokens_to_ids([*'}]"'])]
        return next((i for i in closing if allowed[i]), int(allowed.nonzero()[0]))


def _shared(one, other) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def call(name: str, **arguments) -> str:
    """A call in the Hermes spelling."""
    return (
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"
    )
