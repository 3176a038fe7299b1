"""Who reads what: a request's prompt, and the texts that some of the recipe's models read instead.

A behaviour may compare two texts, with a prompt more or a document less, and base models may read a
conversation in another template than tuned ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_eft.chat.messages import encode, encode_plainly, instruct
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.behaviors import BASE, BehaviorDelta, Recipe, read_template
from langchain_eft.engine.recipe.mixture import Mixture

Ids = tuple[int, ...]
_Reader = Callable[[Sequence[BaseMessage]], Ids]


class Texts(NamedTuple):
    """What a request's models read.

    Attributes:
        prompt: Token ids of the prompt.
        contexts: Those of the texts that some of them read instead, by name.
    """

    prompt: Ids
    contexts: dict[str, Ids]


def read_conversation(
    tokenizer: Any, recipe: Recipe, mixture: Mixture, messages: Sequence[BaseMessage], **details: Any
) -> Texts:
    """A conversation as the models of a mixture read it.

    Args:
        tokenizer: The recipe's.
        recipe: Which models there are.
        mixture: Which of them take part.
        messages: The conversation, oldest first.
        details: Tools, spelling and options, as `messages.encode` takes them.

    Raises:
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: Messages that cannot be rendered, or a behaviour that takes away what is not there.
    """
    by_chat: _Reader = partial(encode, tokenizer, **details)
    by_base = by_chat
    if recipe.base_template:
        by_base = partial(encode_plainly, tokenizer, read_template(recipe.base_template), **details)
    contexts = {BASE: by_base(messages)} if recipe.base_template else {}
    for name, delta in recipe.comparing(mixture).items():
        # What a prompt adds is for F; what stands in a tag is kept from S.
        tuned_reads = delta.has_weights and delta.prompt is not None
        contexts[name] = (by_chat if tuned_reads else by_base)(changed_messages(messages, name, delta))
    return Texts(by_chat(messages), contexts)


def read_text(tokenizer: Any, recipe: Recipe, mixture: Mixture, text: str) -> Texts:
    """The same for a plain text, which no template changes.

    Raises:
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: A behaviour takes away what is not there.
    """
    texts = {BASE: text} if recipe.base_template else {}
    texts |= {n: changed_text(text, n, delta) for n, delta in recipe.comparing(mixture).items()}
    ids, *others = (tuple(tokenizer(each).input_ids) for each in (text, *texts.values()))
    return Texts(ids, dict(zip(texts, others, strict=True)))


def changed_messages(messages: Sequence[BaseMessage], name: str, delta: BehaviorDelta) -> list[BaseMessage]:
    """The conversation with a behaviour's prompt, or without what stands in its tag.

    Raises:
        RequestError: No message has the tag.
    """
    if delta.prompt is not None:
        return instruct(messages, delta.prompt)
    cut = [_without(message, delta) for message in messages]
    if all(after == before for after, before in zip(cut, messages, strict=True)):
        raise _nothing_to_remove(name, delta)
    return [message for message in cut if message.content or not _may_vanish(message)]


def changed_text(text: str, name: str, delta: BehaviorDelta) -> str:
    """The same for a plain text; a prompt stands before it, with an empty line between.

    Raises:
        RequestError: The text does not have the tag.
    """
    if delta.prompt is not None:
        return f"{delta.prompt}\n\n{text}"
    cut = _cut(text, delta)
    if cut == text:
        raise _nothing_to_remove(name, delta)
    return cut


def _without(message: BaseMessage, delta: BehaviorDelta) -> BaseMessage:
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
    shorter, found = re.subn(rf"<{delta.without}>.*?</{delta.without}>", "", text, flags=re.DOTALL)
    return shorter.strip() if found else text


def _may_vanish(message: BaseMessage) -> bool:
    # An empty answer or tool result still belongs to what stands before it.
    return isinstance(message, HumanMessage | SystemMessage)


def _nothing_to_remove(name: str, delta: BehaviorDelta) -> RequestError:
    tag = delta.without
    return RequestError(
        f"The behaviour {name!r} compares the conversation with and without what stands in "
        f"<{tag}>...</{tag}>, and nothing does: put documents between these tags, or leave {name!r} out of "
        "`mixture`."
    )
