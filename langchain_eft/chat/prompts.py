"""The prompts of a request: the main one, and those that some of the recipe's models read instead.

A behavior may compare two prompts: with and without a system prompt, or with and without a document. Base
models may read a conversation in another template than tuned models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_eft.chat.messages import encode, encode_plainly, insert_system_message
from langchain_eft.chat.overlong import refuse_overlong
from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.behaviors import BASE, BehaviorDelta, Recipe, read_template
from langchain_eft.engine.recipe.mixture import Mixture

TokenIds = tuple[int, ...]
_Encoder = Callable[[Sequence[BaseMessage]], TokenIds]


class Prompts(NamedTuple):
    """The prompts that the models of a request read.

    Attributes:
        main: Token ids of the prompt that most models read.
        named: Token ids of the prompts that some models read instead, by name: that of a behavior, or
            `BASE`.
    """

    main: TokenIds
    named: dict[str, TokenIds]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of every distinct prompt, the main one first."""
        return [*map(len, dict.fromkeys([self.main, *self.named.values()]))]


def conversation_prompts(
    tokenizer: Any, recipe: Recipe, mixture: Mixture, messages: Sequence[BaseMessage], **details: Any
) -> Prompts:
    """The prompts of a conversation.

    Args:
        tokenizer: The recipe's.
        recipe: The models.
        mixture: The behaviors that take part.
        messages: The conversation, oldest first.
        details: `tools`, `tool_format`, `options`, `sanitize_control_tokens` and `window`, as for
            `messages.encode`.

    Raises:
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: Messages that cannot be rendered, or a behavior that removes a tag which no message
            has.
    """
    encode_chat: _Encoder = partial(encode, tokenizer, **details)
    encode_base = encode_chat
    if recipe.base_template:
        encode_base = partial(encode_plainly, tokenizer, read_template(recipe.base_template), **details)
    named = {BASE: encode_base(messages)} if recipe.base_template else {}
    for name, delta in recipe.comparing(mixture).items():
        # F reads what `prompt` adds; S reads what `without` leaves.
        tuned_reads = delta.has_weights and delta.prompt is not None
        encoder = encode_chat if tuned_reads else encode_base
        named[name] = encoder(contrast_messages(messages, name, delta))
    return Prompts(encode_chat(messages), named)


def text_prompts(
    tokenizer: Any, recipe: Recipe, mixture: Mixture, text: str, window: int | None = None
) -> Prompts:
    """The prompts of a plain text, which no template changes.

    Args:
        tokenizer: The recipe's.
        recipe: The models.
        mixture: The behaviors that take part.
        text: The text to continue.
        window: Tokens that a prompt and its answer may have together; None takes any length.

    Raises:
        ContextWindowError: The text is much longer.
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: Lone surrogates, or a behavior that removes a tag which the text does not have.
    """
    refuse_surrogates(text)
    refuse_overlong(tokenizer, text, window)
    texts = {BASE: text} if recipe.base_template else {}
    texts |= {name: contrast_text(text, name, delta) for name, delta in recipe.comparing(mixture).items()}
    main, *others = (tuple(tokenizer(each).input_ids) for each in (text, *texts.values()))
    return Prompts(main, dict(zip(texts, others, strict=True)))


def contrast_messages(messages: Sequence[BaseMessage], name: str, delta: BehaviorDelta) -> list[BaseMessage]:
    """The other conversation that a behavior compares: with its prompt, or without the content of its tag.

    Raises:
        RequestError: No message has the tag.
    """
    if delta.prompt is not None:
        return insert_system_message(messages, delta.prompt)
    shortened = [_without_tag(message, delta) for message in messages]
    if all(after == before for after, before in zip(shortened, messages, strict=True)):
        raise _missing_tag(name, delta)
    return [message for message in shortened if message.content or not _may_vanish(message)]


def contrast_text(text: str, name: str, delta: BehaviorDelta) -> str:
    """The other text that a behavior compares: after its prompt and an empty line, or without its tag.

    Raises:
        RequestError: The text does not have the tag.
    """
    if delta.prompt is not None:
        return f"{delta.prompt}\n\n{text}"
    shortened = _cut(text, delta)
    if shortened == text:
        raise _missing_tag(name, delta)
    return shortened


def _without_tag(message: BaseMessage, delta: BehaviorDelta) -> BaseMessage:
    if isinstance(message.content, str):
        content: str | list[str | dict[str, object]] = _cut(message.content, delta)
    else:
        content = [
            _cut(block, delta)
            if isinstance(block, str)
            else {**block, "text": _cut(block["text"], delta)}
            if block.get("type") == "text"
            else block
            for block in message.content
        ]
    return message.model_copy(update={"content": content})


def _cut(text: str, delta: BehaviorDelta) -> str:
    shorter, count = re.subn(rf"<{delta.without}>.*?</{delta.without}>", "", text, flags=re.DOTALL)
    return shorter.strip() if count else text


def _may_vanish(message: BaseMessage) -> bool:
    # An empty answer or tool result still belongs to the message before it.
    return isinstance(message, HumanMessage | SystemMessage)


def _missing_tag(name: str, delta: BehaviorDelta) -> RequestError:
    tag = delta.without
    return RequestError(
        f"The behavior {name!r} compares the conversation with and without the text in "
        f"<{tag}>...</{tag}>, and there is none: put documents between these tags, or leave {name!r} out of "
        "`mixture`."
    )
