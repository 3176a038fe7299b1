"""Labels as the tokens with which the model would say them at the beginning of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from langchain_eft.chat.answer_tokens import end_tokens
from langchain_eft.chat.control_tokens import ControlTokens
from langchain_eft.chat.messages import encode
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError

TokenIds = tuple[int, ...]

_QUESTION = HumanMessage("?")
"""A conversation that is quick to render; what stands before an answer does not depend on it."""


class LabelTokens:
    """Turns labels into tokens.

    Whether an answer begins with a space, and whether its first letters are one token with what stands before
    them, is the chat template's and the tokenizer's business. So a label is rendered as an answer in a
    conversation, and its tokens are those that follow the opening of the answer.

    Args:
        tokenizer: The recipe's.
        options: Variables of the chat template.
        sanitize_control_tokens: Keep the text of labels from becoming control tokens.
    """

    def __init__(
        self, tokenizer: Any, options: Mapping[str, Any], *, sanitize_control_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._encode = partial(
            encode, tokenizer, options=options, sanitize_control_tokens=sanitize_control_tokens
        )
        self._control = ControlTokens(tokenizer, sanitize=sanitize_control_tokens)
        self._opening = self._encode([_QUESTION])
        ends, (_, rest) = end_tokens(tokenizer), self._split("Yes")
        self._end = next((token for token in rest if token in ends), tokenizer.eos_token_id)

    def of_question(self, where: str, labels: Sequence[str], *, end: bool | None) -> list[TokenIds]:
        """The tokens of all labels of a question.

        Args:
            where: What has these labels, for errors.
            labels: The labels.
            end: Whether the token that ends an answer belongs to each of them. None adds it where the tokens
                of one label are the beginning of another's: only then can an answer be the start of both.

        Raises:
            RequestError: Labels that are the same tokens.
        """
        ids = [self._split(label)[0] for label in labels]
        ordered = sorted(zip(ids, labels, strict=True))
        for (first, label), (second, other) in pairwise(ordered):
            if first == second:
                raise RequestError(
                    f"{where} has the labels {shown(label)} and {shown(other)}, which the model says in the "
                    "same tokens: leave one out, or use other words."
                )
        # In sorted order, a beginning stands right before one of its continuations.
        if end is None:
            end = any(second[: len(first)] == first for (first, _), (second, _) in pairwise(ordered))
        return [(*tokens, self._end) for tokens in ids] if end else ids

    def _split(self, label: str) -> tuple[TokenIds, TokenIds]:
        """The tokens of a label, and those that the template writes behind it."""
        try:
            whole = self._encode([_QUESTION, AIMessage(label)], answer=False)
        except RequestError:  # a template that does not end with an answer
            whole = ()
        answer = whole[len(self._opening) :]
        if whole[: len(self._opening)] == self._opening:
            for length in range(1, len(answer) + 1):
                if self._tokenizer.decode(answer[:length]).strip() == label.strip():
                    return answer[:length], answer[length:]
        # A template that opens an answer in other ways than it writes one.
        return self._control.text_ids(label.strip()), ()
