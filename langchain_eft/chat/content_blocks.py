"""LangChain's standard content blocks of our messages, whole and streamed.

Without a translator of its own, a streamed tool call of a message with text before it is merged into the text
block: both are numbered from 0. Names as indexes keep them apart.
"""

from __future__ import annotations

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

PROVIDER = "eft"


def translate(message: AIMessage) -> list[types.ContentBlock]:
    """Blocks of a whole message: reasoning, text, tool calls and calls that could not be read."""
    blocks: list[Any] = _spoken(message)
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
    """Blocks of a part of a message; parts of one call carry one index."""
    if chunk.chunk_position == "last" and chunk.tool_calls:  # the sum of all parts
        return translate(chunk)
    blocks: list[Any] = _spoken(chunk)
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


def _spoken(message: AIMessage) -> list[Any]:
    if not isinstance(message.content, str):
        raise NotImplementedError  # messages of others: LangChain reads their blocks as best it can
    reasoning = message.additional_kwargs.get("reasoning_content")
    blocks: list[Any] = [{"type": "reasoning", "reasoning": reasoning}] if reasoning else []
    return [*blocks, {"type": "text", "text": message.content}] if message.content else blocks


register_translator(PROVIDER, translate, translate_chunk)
