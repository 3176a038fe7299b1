"""Content that a text model cannot read: images, audio, video and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from langchain_core.messages import BaseMessage

from langchain_eft.chat.messages import is_text

Message = TypeVar("Message", bound=BaseMessage)

UnsupportedContent = Literal["describe", "error"]
"""Replace media by a line of text, or refuse the message."""

_LONGEST_DETAIL = 200
"""Characters of a name or address that a description keeps."""


def readable(messages: Sequence[Message], unsupported_content: UnsupportedContent) -> list[Message]:
    """The messages as a text model can read them.

    Args:
        messages: The conversation.
        unsupported_content: `describe` puts a line of text in the place of every medium. `error` leaves the
            messages as they are; media are refused when they are rendered.
    """
    return [_described(message) if unsupported_content == "describe" else message for message in messages]


def _described(message: Message) -> Message:
    if isinstance(message.content, str) or all(map(is_text, message.content)):
        return message
    blocks = [
        block if isinstance(block, str) or is_text(block) else {"type": "text", "text": description(block)}
        for block in message.content
    ]
    return message.model_copy(update={"content": blocks})


def description(block: Mapping[str, Any]) -> str:
    """A line that says what was there: `[image, image/png, 24 kB: left out, ...]`."""
    details = ", ".join([str(block.get("type")), *_details(block)])
    return f"\n[{details}: left out, because this model reads text only]\n"


def _details(block: Mapping[str, Any]) -> list[str]:
    """Media type, name, address and size, in the forms of LangChain, OpenAI, Anthropic and Google."""
    nested = [value for value in block.values() if isinstance(value, Mapping)]
    fields = {
        key: value for part in (*nested, block) for key, value in part.items() if isinstance(value, str)
    }
    data = next((fields[key] for key in ("base64", "data", "file_data") if key in fields), "")
    address = fields.get("url") or fields.get("image_url") or ""
    if address.startswith("data:"):
        data, address = address, ""
    header, _, encoded = data.rpartition(",")
    media_type = header.removeprefix("data:").partition(";")[0]
    media_type = media_type or fields.get("mime_type") or fields.get("media_type") or fields.get("format", "")
    names = (fields.get(key, "") for key in ("filename", "name", "title", "file_id"))
    size = f"{max(1, len(encoded) * 3 // 4000)} kB" if encoded else ""
    return [detail[:_LONGEST_DETAIL] for detail in (media_type, *names, address, size) if detail]
