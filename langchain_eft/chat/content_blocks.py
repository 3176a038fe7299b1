"""Messages of this package as LangChain's standard content blocks, whole and streamed.

LangChain's default translator merges a streamed tool call into the text block before it, because it numbers
both from 0. This translator uses names as indexes, which keeps them apart.
"""

from __future__ import annotations

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

PROVIDER = "eft"
"""The name under which messages of this package are translated and traced."""


def translate(message: AIMessage) -> list[types.ContentBlock]:
    """The blocks of a whole message: reasoning, text, tool calls and invalid tool calls."""
    blocks: list[Any] = _text_blocks(message)
    blocks += [
        {"type": "tool_call", "id": c["id"], "name": c["name"], "args": c["args"]} for c in message.tool_calls
    ]
    blocks += [
        {
            "type": "invalid_tool_call",
            "id": c["id"],
            "name": c["name"],
            "args": c["args"],
            "error": c["error"],
        }
        for c in message.invalid_tool_calls
    ]
    return cast("list[types.ContentBlock]", blocks)


def translate_chunk(chunk: AIMessageChunk) -> list[types.ContentBlock]:
    """The blocks of a part of a message. Parts of one call have the same index."""
    if chunk.chunk_position == "last" and (
        chunk.tool_calls or chunk.invalid_tool_calls
    ):  # the sum of all parts
        return translate(chunk)
    blocks: list[Any] = _text_blocks(chunk)
    blocks += [
        {
            "type": "tool_call_chunk",
            "id": c["id"],
            "name": c["name"],
            "args": c["args"],
            "index": f"lc_tc_{c['index']}",
        }
        for c in chunk.tool_call_chunks
    ]
    return cast("list[types.ContentBlock]", blocks)


def _text_blocks(message: AIMessage) -> list[Any]:
    if not isinstance(message.content, str):
        raise NotImplementedError  # a message of another provider: LangChain then uses its default translator
    reasoning = message.additional_kwargs.get("reasoning_content")
    blocks: list[Any] = [{"type": "reasoning", "reasoning": reasoning}] if reasoning else []
    return [*blocks, {"type": "text", "text": message.content}] if message.content else blocks


register_translator(PROVIDER, translate, translate_chunk)
