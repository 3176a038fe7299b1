"""An answer as the tokens with which the chat template writes it behind its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage

from langchain_eft.chat.messages import encode

TokenIds = tuple[int, ...]


class WrittenAnswer(NamedTuple):
    """An answer in a rendered conversation.

    Attributes:
        ids: The tokens behind the prompt, up to the one that ends the answer.
        continues: Whether they continue the prompt. Some templates open an answer in another way than they
            write one; then `ids` begin where the two ways part.
    """

    ids: TokenIds
    continues: bool


def write_answer(
    tokenizer: Any, prompt: TokenIds, messages: Sequence[BaseMessage], answer: AIMessage, **details: Any
) -> WrittenAnswer:
    """Render an answer with the conversation before it.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        prompt: What `encode` makes of the messages, with the opening of the answer.
        messages: The conversation, oldest first.
        answer: What follows it.
        details: `tools`, `options` and `sanitize_control_tokens`, as for `encode`.

    Raises:
        RequestError: Messages that cannot be rendered.
    """
    whole = encode(tokenizer, [*messages, answer], answer=False, **details)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
    return WrittenAnswer(_ended(tokenizer, whole[shared:]), shared == len(prompt))


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens that may end an answer: all special tokens.

    A base's tokenizer knows the tuned model's end token (`<|eot_id|>` of Llama 3) without a name for it, and
    calls another one its `eos_token`.
    """
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*added, *tokenizer.all_special_ids, tokenizer.eos_token_id})


def _ended(tokenizer: Any, ids: TokenIds) -> TokenIds:
    """An answer up to its last special token, which ends it. Some templates add a line break."""
    special = end_tokens(tokenizer)
    ends = [i for i, token in enumerate(ids) if token in special]
    return ids[: ends[-1] + 1] if ends else (*ids, tokenizer.eos_token_id)
