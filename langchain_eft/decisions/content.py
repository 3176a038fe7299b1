"""What a decision is about, as text: strings, messages, and structures of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_eft.chat.media import UnsupportedContent, description, readable
from langchain_eft.chat.messages import text, to_turn
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError

_MEDIA = {"image", "image_url", "audio", "input_audio", "video", "file", "document", "text-plain"}
"""Types of content blocks that may hold media."""

_MEDIA_FIELDS = {
    "base64", "data", "url", "file_id", "image_url", "input_audio", "file", "source", "source_type",
}  # fmt: skip
"""Fields of such blocks. A dictionary that has none of them is ordinary data."""


def as_text(value: Any, unsupported_content: UnsupportedContent, where: str) -> str:
    """A value as the models read it: a string as it is, nothing as "", and everything else as JSON.

    A message without tool calls is its text.

    Args:
        value: A string, a message, numbers, None, or lists and dictionaries of these.
        unsupported_content: What happens to media: `describe` or `error`.
        where: What holds the value, for errors.

    Raises:
        RequestError: Media, where they are refused, or a value that JSON does not have.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, BaseMessage) and not getattr(value, "tool_calls", None):
        return text(_readable(value, unsupported_content))
    try:
        return json.dumps(_plain(value, unsupported_content, where), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{where} cannot be written as JSON ({error}): use text, messages, numbers, lists and "
            "dictionaries."
        ) from error


def _readable(message: BaseMessage, unsupported_content: UnsupportedContent) -> BaseMessage:
    return readable([message], unsupported_content)[0]


def _plain(value: Any, unsupported_content: UnsupportedContent, where: str) -> Any:
    if isinstance(value, BaseMessage):
        return to_turn(_readable(value, unsupported_content))
    if isinstance(value, Mapping):
        if value.get("type") in _MEDIA and not _MEDIA_FIELDS.isdisjoint(value):
            if unsupported_content == "error":
                raise RequestError(
                    f"{where} holds {shown(value['type'])} content, which a text model cannot read: leave it "
                    "out, or set `unsupported_content='describe'`."
                )
            return description(value).strip()
        return {str(key): _plain(item, unsupported_content, where) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, unsupported_content, where) for item in value]
    return value
