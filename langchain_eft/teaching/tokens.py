"""Examples as token ids, rendered by the recipe's chat template. Only the tokens of answers are learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_eft.chat.answer_tokens import write_answer
from langchain_eft.chat.messages import encode
from langchain_eft.engine.errors import EngineError
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Conversation, PreferencePair

IGNORED = -100
"""The label of a token that is not learned, as in torch and transformers."""


@dataclass(frozen=True)
class TokenizedText:
    """A text that is learned in parts.

    Attributes:
        ids: Token ids, [tokens].
        labels: The same ids, with `IGNORED` where a token is not learned, [tokens].
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def to_row(self) -> dict[str, list[int]]:
        """The text as the SFT trainer reads it."""
        return {"input_ids": list(self.ids), "labels": list(self.labels)}


@dataclass(frozen=True)
class TokenizedPair:
    """Two answers to one prompt, as token ids.

    Attributes:
        prompt: The prompt.
        chosen: The better answer, with the token that ends it.
        rejected: The worse answer, with the token that ends it.
    """

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def to_row(self) -> dict[str, list[int]]:
        """The pair as the DPO trainer reads it."""
        return {
            "prompt_ids": list(self.prompt),
            "chosen_ids": list(self.chosen),
            "rejected_ids": list(self.rejected),
        }


@dataclass(frozen=True)
class Renderer:
    """Renders examples as the engine would render them for decoding.

    The end of an answer is learned with it, unless the answer was cut off: its `response_metadata` has the
    `finish_reason` "length", as LangChain's chat models write it.

    Attributes:
        tokenizer: The recipe's, with its chat template.
        window: Longest text, in tokens.
    """

    tokenizer: Any
    window: int

    def conversation(self, conversation: Conversation) -> list[TokenizedText]:
        """A conversation as texts: one, unless the template renders earlier answers differently.

        Raises:
            TeachingError: A text longer than the window, or messages that the template refuses.
        """
        texts: list[TokenizedText] = []
        for i, message in enumerate(conversation.messages):
            if isinstance(message, AIMessage):
                before = conversation.messages[:i]
                prompt, answer = self.answer(conversation.place, before, message, conversation.tools)
                texts.append(TokenizedText((*prompt, *answer), (*[IGNORED] * len(prompt), *answer)))
        return _joined(texts)

    def pair(self, pair: PreferencePair) -> TokenizedPair:
        """A pair as token ids.

        Raises:
            TeachingError: A text longer than the window, or messages that the template refuses.
        """
        prompt, chosen = self.answer(pair.place, pair.prompt, pair.chosen, pair.tools)
        _, rejected = self.answer(pair.place, pair.prompt, pair.rejected, pair.tools)
        return TokenizedPair(prompt, chosen, rejected)

    def answer(
        self,
        place: str,
        before: Sequence[BaseMessage],
        answer: AIMessage,
        tools: Sequence[dict[str, Any]],
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the prompt, and those of the answer up to the token that ends it, if it ended.

        Args:
            place: Where the example stands, for error messages.
            before: The messages before the answer.
            answer: The answer.
            tools: Tools that may be called.

        Raises:
            TeachingError: A text longer than the window, or messages that the template refuses.
        """
        try:
            prompt = encode(self.tokenizer, before, tools=tools)
            ids, continues = write_answer(self.tokenizer, prompt, before, answer, tools=tools)
        except EngineError as error:
            raise TeachingError(f"{place}: {error}") from error
        if not continues:
            raise TeachingError(
                f"{place}: the chat template renders an answer in another way than it opens one, so the "
                "answer's tokens cannot be told from the prompt's: give another template."
            )
        if answer.response_metadata.get("finish_reason") == "length":
            ids = ids[:-1]
        if len(prompt) + len(ids) > self.window:
            raise TeachingError(
                f"{place}: prompt and answer have {len(prompt)} and {len(ids)} tokens, and the context "
                f"window is {self.window} tokens: shorten or remove the example."
            )
        return prompt, ids


def _joined(texts: Iterable[TokenizedText]) -> list[TokenizedText]:
    """Texts, each joined with the next one if that begins with it."""
    joined: list[TokenizedText] = []
    for text in texts:
        last = joined[-1] if joined else None
        if last and text.ids[: len(last.ids)] == last.ids:
            joined[-1] = TokenizedText(text.ids, (*last.labels, *text.labels[len(last.labels) :]))
        else:
            joined.append(text)
    return joined
