"""EFTTrace: what the base and every behaviour did to each token of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation
from pydantic import BaseModel, ConfigDict

from langchain_eft.engine.detokenizer import Detokenizer
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.request import GenerationRequest, TextDelta
from langchain_eft.engine.trace import Shift, TokenTrace

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BASE = "base"
"""What `TracedToken.changed_by` calls the large model."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Alternative(_Frozen):
    """A token whose probability was changed, and by how much: -1 to 1."""

    token: str
    change: float


class Change(_Frozen):
    """How p differs from what it would be without a part of the formula."""

    total_variation: float
    """0 where nothing changed, 1 where nothing stayed: how often a sampler would draw another token."""

    up: Alternative
    """The token whose probability was raised most; it may be the one that was drawn."""

    down: Alternative
    """The token whose probability was lowered most."""


class Contribution(Change):
    """One behaviour's part in a token: the change is from p without this behaviour to p."""

    weight: float
    """w_i."""

    tuned: float
    """log F_i of the token."""

    reference: float
    """log S_i of the token."""

    contribution: float
    """`w_i (F_i - S_i)`: what the behaviour adds to log p of the token before normalising, in nats."""


class TracedToken(_Frozen):
    """One token of an answer. p is the formula's: before temperature, penalties, filters and grammar."""

    id: int
    token: str
    """The token by itself."""

    text: str
    """What it adds to the text: nothing for end tokens, nor for a character that is not complete yet."""

    logprob: float
    """log p."""

    base: float
    """log L, the large model's."""

    small: float | None
    """The same under the small mixture, `S + sum_i w_i (F_i - S)`; None where no small model takes part."""

    from_base: Change
    """From the large model to p: what the behaviours changed together."""

    from_small: Change | None
    """From the small mixture to p: what the large model changed."""

    behaviors: dict[str, Contribution]
    """What each behaviour changed by itself."""

    cut: int = 0
    """Characters at the end of the text so far that a stop string took away."""

    @property
    def changed_by(self) -> str | None:
        """Who changed p most: a behaviour's name, `base`, or None where nobody changed a tenth of it."""
        changes = {name: part.total_variation for name, part in self.behaviors.items()}
        if self.from_small is not None:
            changes = {BASE: self.from_small.total_variation, **changes}
        most = max(changes, key=lambda name: changes[name], default=None)
        return most if most is not None and changes[most] >= 0.1 else None


class Word(_Frozen):
    """A word of the answer and the largest total variation among its tokens."""

    text: str
    total_variation: float


class PartSummary(_Frozen):
    """What one part of the formula did to the answer."""

    mean: float
    """Mean total variation: the share of tokens that a sampler would expect to differ without this part."""

    changed: float
    """Share of tokens with a total variation above a half: where another token was more likely than not."""

    words: tuple[Word, ...]
    """The words that changed most."""

    contribution: float | None = None
    """Mean of `w_i (F_i - S_i)` over the tokens, in nats; None for the large model."""


class TraceSummary(_Frozen):
    """An answer's trace in a few numbers."""

    tokens: int
    base: PartSummary | None
    """What the large model changed of the small mixture; None where no small model takes part."""

    behaviors: dict[str, PartSummary]
    """What each behaviour changed."""

    def __str__(self) -> str:
        parts = {**({BASE: self.base} if self.base else {}), **self.behaviors}
        lines = [f"{self.tokens} tokens; share that would differ without each part:"]
        for name, part in parts.items():
            words = ", ".join(f"{word.text!r} {word.total_variation:.2f}" for word in part.words)
            lines.append(f"  {name}: {part.mean:.0%} (most: {words or 'nothing'})")
        return "\n".join(lines)


class EFTTrace(_Frozen):
    """What the base and every behaviour did to each token of an answer.

    Example:
        ```python
        from langchain_eft import EFTChatModel, EFTTrace

        llm = EFTChatModel(mixture={"pirate": 1.0}, trace=True)
        trace = EFTTrace.from_message(llm.invoke("What is the capital of Japan?"))
        trace.print()
        print(trace.summary())
        Path("trace.html").write_text(trace.to_html(), encoding="utf-8")
        ```
    """

    tokens: tuple[TracedToken, ...]

    @classmethod
    def from_message(cls, message: BaseMessage | Generation) -> Self:
        """The trace that a message (or a plain completion's generation) carries.

        Raises:
            RequestError: It carries none.
        """
        return cls.from_chunks([message])

    @classmethod
    def from_chunks(cls, chunks: Iterable[BaseMessage | Generation]) -> Self:
        """The trace of a streamed answer, from its chunks in order.

        Raises:
            RequestError: None of them carries any.
        """
        tokens = tuple(token for chunk in chunks for token in traced_tokens(chunk))
        if not tokens:
            raise RequestError("There is no trace in this answer: ask for one with `trace=True`.")
        return cls(tokens=tokens)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """A trace from what `to_dict` has made.

        Raises:
            ValidationError: Something else.
        """
        return cls.model_validate(data)

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain data, for JSON."""
        return self.model_dump(mode="json")

    @property
    def text(self) -> str:
        """What the tokens say, up to a stop string."""
        return "".join(self.pieces())

    def pieces(self) -> list[str]:
        """What each token adds to the text, without what a stop string took away."""
        pieces, cut = [], sum(token.cut for token in self.tokens)
        for token in reversed(self.tokens):
            pieces.append(token.text[: max(len(token.text) - cut, 0)])
            cut -= min(cut, len(token.text))
        return pieces[::-1]

    def summary(self, words: int = 5) -> TraceSummary:
        """The trace in a few numbers.

        Args:
            words: How many of the most changed words to name for each part.
        """
        names = dict.fromkeys(name for token in self.tokens for name in token.behaviors)
        by_base = [token.from_small for token in self.tokens]
        return TraceSummary(
            tokens=len(self.tokens),
            base=self._part([change for change in by_base if change], words) if all(by_base) else None,
            behaviors={
                name: self._part([token.behaviors[name] for token in self.tokens], words) for name in names
            },
        )

    def _part(self, changes: Sequence[Change], words: int) -> PartSummary:
        values = [change.total_variation for change in changes]
        added = [change.contribution for change in changes if isinstance(change, Contribution)]
        return PartSummary(
            mean=sum(values) / len(values),
            changed=sum(value > 0.5 for value in values) / len(values),
            words=tuple(self._words(values, words)),
            contribution=sum(added) / len(added) if added else None,
        )

    def _words(self, values: Sequence[float], count: int) -> list[Word]:
        """The words that changed most, each with its most changed token's value."""
        words: list[tuple[str, float]] = []
        inside, held = False, 0.0
        for piece, value in zip(self.pieces(), values, strict=True):
            held = max(held, value)
            if not piece:  # an incomplete character belongs to what follows, an end token to nothing
                continue
            if inside and not piece[0].isspace():
                text, before = words.pop()
                words.append((text + piece, max(before, held)))
            else:
                words.append((piece, held))
            inside, held = not piece[-1].isspace(), 0.0
        named = [(text.strip(), value) for text, value in words if text.strip()]
        most = sorted(named, key=lambda word: -word[1])[:count]
        return [Word(text=text, total_variation=value) for text, value in most]

    def to_html(self) -> str:
        """A page of its own: the answer in colours; pointing at a token shows what made it."""
        from langchain_eft.trace_view import document

        return document(self)

    def print(self, console: Console | None = None) -> None:
        """Show the answer in a terminal's colours; plain text where there is no terminal."""
        from rich.console import Console

        (console or Console(highlight=False)).print(self)

    def __rich__(self) -> RenderableType:
        from langchain_eft.trace_view import terminal

        return terminal(self)

    def _repr_html_(self) -> str:
        from langchain_eft.trace_view import fragment

        return fragment(self)


def traced_tokens(answer: BaseMessage | Generation) -> list[TracedToken]:
    """The traced tokens that a message, a generation or a chunk of either carries; none if it has none."""
    held = answer.response_metadata if isinstance(answer, BaseMessage) else answer.generation_info or {}
    return [TracedToken.model_validate(entry) for entry in held.get("trace", ())]


class TraceWriter:
    """Writes the engine's traces of one answer as metadata.

    Args:
        tokenizer: For the texts of tokens.
        request: What is being answered.
    """

    def __init__(self, tokenizer: Any, request: GenerationRequest) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, request.visible_tokens)

    def feed(self, event: TextDelta) -> dict[str, list[dict[str, Any]]]:
        """`{"trace": [...]}` with one entry for each of the event's tokens; empty if they are not traced."""
        entries = [entry.model_dump() for entry in self._entries(event)]
        return {"trace": entries} if entries else {}

    def _entries(self, event: TextDelta) -> Iterator[TracedToken]:
        for token, trace in zip(event.tokens, event.traces, strict=False):
            yield self._entry(token, trace)

    def _entry(self, token: int, trace: TokenTrace) -> TracedToken:
        return TracedToken(
            id=token,
            token=self._decode(token),
            text=self._detokenizer.feed([token]),
            logprob=trace.logprob,
            base=trace.base,
            small=trace.small,
            from_base=Change(**self._change(trace.from_base)),
            from_small=None if trace.from_small is None else Change(**self._change(trace.from_small)),
            behaviors={
                name: Contribution(
                    weight=part.weight,
                    tuned=part.tuned,
                    reference=part.reference,
                    contribution=part.weight * (part.tuned - part.reference),
                    **self._change(part.shift),
                )
                for name, part in trace.behaviors.items()
            },
            cut=trace.cut,
        )

    def _change(self, shift: Shift) -> dict[str, Any]:
        (up, raised), (down, lowered) = shift.up, shift.down
        return {
            "total_variation": shift.total_variation,
            "up": Alternative(token=self._decode(up), change=raised),
            "down": Alternative(token=self._decode(down), change=lowered),
        }

    def _decode(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text
