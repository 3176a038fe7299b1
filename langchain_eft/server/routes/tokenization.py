"""`/tokenize` and `/detokenize`: texts and conversations as the models read them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.server.protocol.bodies import DetokenizeBody, TokenizeBody

if TYPE_CHECKING:
    from langchain_eft.server.serving import Serving

router = APIRouter()


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, request: Request) -> dict[str, Any]:
    """The token ids of a text, or of a conversation in the chat template."""
    serving = request.app.state.serving
    tokens = await asyncio.to_thread(_token_ids, serving, body)
    tokenizer = serving.engine.tokenizer
    return {
        "count": len(tokens),
        "max_model_len": serving.engine.window,
        "tokens": tokens,
        "token_strs": tokenizer.convert_ids_to_tokens(tokens) if body.return_token_strs else None,
    }


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> dict[str, Any]:
    """The text of token ids, special tokens included."""
    tokenizer = request.app.state.serving.engine.tokenizer
    outside = [token for token in body.tokens if not 0 <= token < len(tokenizer)]
    if outside:
        raise RequestError(
            f"Token id {shown(outside[0])} in `tokens` is outside the vocabulary of {len(tokenizer)} tokens: "
            "use ids of /tokenize."
        )
    return {"prompt": await asyncio.to_thread(tokenizer.decode, body.tokens)}


def _token_ids(serving: Serving, body: TokenizeBody) -> list[int]:
    if body.messages is None:
        special = body.add_special_tokens is not False
        ids: list[int] = serving.engine.tokenizer(body.prompt, add_special_tokens=special).input_ids
        return ids
    messages = [message.as_langchain() for message in body.messages]
    options = body.chat_template_kwargs
    answer = body.add_generation_prompt
    return serving.llm.message_token_ids(messages, body.tools, answer=answer, chat_template_kwargs=options)
