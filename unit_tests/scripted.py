"""An engine without models: it says what its script says, under real grammars and in real pieces of text."""

import asyncio
import json
from collections.abc import Callable
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest
from transformers import AddedToken

import langchain_eft
from langchain_eft.engine import registry
from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.decoding.answer_text import Detokenizer, StopMatcher
from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.events import Finished, TextDelta, TokenLogprobs
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.stats import EngineStats
from unit_tests import tiny

TEMPLATE = (Path(langchain_eft.__file__).parent / "presets/smol/chat_template.jinja").read_text()
"""Shows tools and calls in the Hermes spelling."""

MODEL = str(Path(__file__).parent)
"""Any folder names a model here: the engine has none."""

BURST = 4
"""Tokens per round, as if three drafts were right every time."""

Script = Callable[[str], list[str]]
"""From a prompt to what may be said to it; the first that the grammar admits is said."""


class ScriptedEngine(BaseEngine):
    """What `EFTChatModel` and `EFTLLM` use of an engine.

    Where the grammar admits nothing of the script, the answer is the shortest way to its end.
    """

    recipe, closed = Recipe(base=MODEL), False
    tokenizer = capacity = None
    close = score = answer_logprobs = aanswer_logprobs = _prepare = None

    def __init__(self, script: Script, chat_template: str, tags: tuple[str, ...] = (), window: int = 8192):
        self.tokenizer = tiny.tokenizer()
        self.tokenizer.add_tokens([AddedToken(tag, special=False) for tag in tags])
        self.tokenizer.chat_template = chat_template
        self.capacity = Capacity(max_model_len=window, num_blocks=window, block_size=16)
        self._script = script
        self._end = self.tokenizer.eos_token_id
        self._grammars = Grammars(self.tokenizer, len(self.tokenizer), {self._end})
        self._read: list[list[int]] = []
        self._running = self._generated = 0

    def stats(self) -> EngineStats:
        idle = dict.fromkeys(EngineStats.__dataclass_fields__, 0)
        return EngineStats(**{**idle, "running": self._running, "generated_tokens": self._generated})

    def stream(self, request, timeout=None):
        self._running += 1
        try:
            yield from self._events(request)
        finally:
            self._running -= 1

    async def astream(self, request, timeout=None, turn=None):
        stream = self.stream(request, timeout)
        try:
            for event in stream:
                await asyncio.sleep(0)
                yield event
        finally:
            stream.close()

    def generate(self, requests, timeout=None):
        return [list(self.stream(request, timeout)) for request in requests]

    def _events(self, request):
        prompt = list(request.prompt_ids)
        self.capacity.check([len(prompt)], 0, request.max_tokens)
        words, stops = Detokenizer(self.tokenizer, request.visible_tokens), StopMatcher(request.stop)
        grammar = self._grammars.compile(request.grammar) if request.grammar else None
        scripted = [*self._choose(request), *[self._end] * request.max_tokens]
        cached = max((_shared(prompt, read) for read in self._read), default=0)
        said: list[int] = []
        ended = False
        while not ended:
            text, before, pieces = "", len(said), []
            while len(said) < min(before + BURST, request.max_tokens) and not ended:
                token = scripted[len(said)]
                if grammar:
                    token = token if grammar.mask()[token] else self._shortest(grammar.mask(), said)
                    grammar.consume(token)
                said.append(token)
                pieces.append("" if token == self._end else words.feed([token]))
                text += stops.feed(pieces[-1])
                ended = token == self._end or stops.stopped or bool(grammar and grammar.complete)
            reason = "stop" if ended else "length"
            ended = ended or len(said) == request.max_tokens
            if ended and not stops.stopped:
                rest = words.flush()
                pieces[-1] += rest
                text += stops.feed(rest) + stops.flush()
            burst = tuple(said[before:])
            logprobs = self._logprobs(request, burst)
            yield TextDelta(text, burst, tuple(pieces), logprobs, cut=stops.cut)
        self._generated += len(said)
        self._read.append([*prompt, *said])
        rounds = -(-len(said) // BURST)
        yield Finished(
            reason=reason, prompt_tokens=len(prompt), completion_tokens=len(said), cached_tokens=cached,
            drafted_tokens=len(said) - rounds, accepted_tokens=len(said) - rounds, verify_passes=rounds,
            time_to_first_token=0.001, seconds=0.002,
        )  # fmt: skip

    def _logprobs(self, request, tokens) -> tuple[TokenLogprobs, ...]:
        if request.top_logprobs is None:
            return ()
        return tuple(TokenLogprobs(-0.5, ((token, -0.5),) * request.top_logprobs) for token in tokens)

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

    def _shortest(self, allowed, said: list[int]) -> int:
        """A token that leads to the end: closing ones first."""
        quoted = self.tokenizer.decode(said).count('"') % 2
        closing = [self._end, *self.tokenizer.convert_tokens_to_ids([*('"' if quoted else '}]"')])]
        return next((i for i in closing if allowed[i]), int(allowed.nonzero()[0]))


@contextmanager
def installed(engine: ScriptedEngine):
    """Make every model decode with this engine, whatever folder it names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "open_engine", lambda *_: engine)
        patch.setattr(registry, "find_engine", lambda *_: engine)
        yield engine


def _shared(one, other) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def call(name: str, **arguments) -> str:
    """A call in the Hermes spelling."""
    return (
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"
    )
