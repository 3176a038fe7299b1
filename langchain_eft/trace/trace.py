"""EFTTrace: which model of the mixture is responsible for which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation

from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.frozen import FrozenModel
from langchain_eft.trace import view
from langchain_eft.trace.tokens import (
    Change,
    Contribution,
    PartSummary,
    TracedToken,
    TraceSummary,
    Word,
    traced_tokens,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class EFTTrace(FrozenModel):
    """What the base and every behavior changed at each token of an answer.

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
        """The trace in a message, or in the generation of a plain completion.

        Raises:
            RequestError: There is none.
        """
        return cls.from_chunks([message])

    @classmethod
    def from_chunks(cls, chunks: Iterable[BaseMessage | Generation]) -> Self:
        """The trace of a streamed answer.

        Args:
            chunks: The answer's chunks in order.

        Raises:
            RequestError: There is none.
        """
        tokens = tuple(token for chunk in chunks for token in traced_tokens(chunk))
        if not tokens:
            raise RequestError("This answer has no trace: ask for one with `trace=True`.")
        return cls(tokens=tokens)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The trace that `to_dict` has turned into plain data.

        Raises:
            ValidationError: Data of another form.
        """
        return cls.model_validate(data)

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain data, for JSON."""
        return self.model_dump(mode="json")

    @property
    def text(self) -> str:
        """The text of the answer, up to a stop string."""
        return "".join(self.pieces())

    def pieces(self) -> list[str]:
        """What each token adds to the text, without what a stop string has removed."""
        pieces, cut = [], sum(token.cut for token in self.tokens)
        for token in reversed(self.tokens):
            pieces.append(token.text[: max(len(token.text) - cut, 0)])
            cut -= min(cut, len(token.text))
        return pieces[::-1]

    def summary(self, words: int = 5) -> TraceSummary:
        """The trace in a few numbers.

        Args:
            words: How many of the most changed words to list for each part.
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
        parts = [change for change in changes if isinstance(change, Contribution)]
        added = [part.contribution for part in parts]
        opened = [part.opened for part in parts if part.opened is not None]
        return PartSummary(
            mean=sum(values) / len(values),
            changed=sum(value > 0.5 for value in values) / len(values),
            words=tuple(self._words(values, words)),
            contribution=sum(added) / len(added) if added else None,
            opened=sum(opened) / len(opened) if opened else None,
        )

    def _words(self, values: Sequence[float], count: int) -> list[Word]:
        """The words that changed most, each with the largest value among its tokens."""
        words: list[tuple[str, float]] = []
        in_word, pending = False, 0.0
        for piece, value in zip(self.pieces(), values, strict=True):
            pending = max(pending, value)
            if not piece:  # an incomplete character belongs to the next piece, an end token to none
                continue
            if in_word and not piece[0].isspace():
                text, before = words.pop()
                words.append((text + piece, max(before, pending)))
            else:
                words.append((piece, pending))
            in_word, pending = not piece[-1].isspace(), 0.0
        visible = [(text.strip(), value) for text, value in words if text.strip()]
        largest = sorted(visible, key=lambda word: -word[1])[:count]
        return [Word(text=text, total_variation=value) for text, value in largest]

    def to_html(self) -> str:
        """A whole HTML page with the answer in colors. Pointing at a token shows its contributions."""
        return view.document(self.tokens, self.pieces(), self.summary())

    def print(self, console: Console | None = None) -> None:
        """Print the answer in colors in a terminal, else as plain text."""
        from rich.console import Console

        (console or Console(highlight=False)).print(self)

    def __rich__(self) -> RenderableType:
        return view.terminal(self.tokens, self.pieces(), self.summary())

    def _repr_html_(self) -> str:
        return view.fragment(self.tokens, self.pieces(), self.summary())
