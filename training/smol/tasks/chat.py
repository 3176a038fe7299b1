"""Conversations in ChatML, as text and as training tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

SYSTEM_PROMPT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
END_OF_TURN = "<|im_end|>"


class Turn(NamedTuple):
    """One message of a conversation.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: The text of the message.
        learn: Whether a model is trained to write this message.
    """

    role: str
    content: str
    learn: bool = False


def header(role: str) -> str:
    """Return the text that opens a turn of `role`."""
    return f"<|im_start|>{role}\n"


def render(turns: Sequence[Turn]) -> str:
    """Return the text of finished turns."""
    return "".join(f"{header(turn.role)}{turn.content}{END_OF_TURN}\n" for turn in turns)


def encode(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], max_tokens: int
) -> tuple[list[int], list[int]]:
    """Turn a conversation into training tokens.

    Args:
        tokenizer: The family's tokenizer.
        turns: The conversation; an empty system message is left out.
        max_tokens: Where the token lists are cut.

    Returns:
        Token ids and, for each, 1 where it is to be learned and 0 elsewhere; both lists have the
        same length, at most `max_tokens`.
    """
    ids: list[int] = []
    mask: list[int] = []
    for turn in turns:
        if turn.role == "system" and not turn.content:
            continue
        opening = tokenizer(header(turn.role)).input_ids
        body = tokenizer(turn.content + END_OF_TURN).input_ids
        closing = tokenizer("\n").input_ids
        ids += opening + body + closing
        mask += [0] * len(opening) + [int(turn.learn)] * len(body) + [0] * len(closing)
    return ids[:max_tokens], mask[:max_tokens]
