"""`/tokenize` and `/detokenize`: texts and conversations as the models read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from langchain_eft.chat.overlong import refuse_overlong
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.server.protocol.bodies import DetokenizeBody, TokenizeBody
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.event_stream import json_response

if TYPE_CHECKING:
    from langchain_eft.server.serving import Serving

router = APIRouter(route_class=BodyRoute)


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, request: Request) -> Response:
    """The token ids of a text, or of a conversation in the chat template."""
    serving = request.app.state.serving
    return json_response(await serving.threads.run(request, _tokenized, serving, body))


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> Response:
    """The text of token ids, special tokens included."""
    serving = request.app.state.serving
    text = await serving.threads.run(request, _text, serving.engine.tokenizer, body.tokens)
    return json_response({"prompt": text})


def _tokenized(serving: Serving, body: TokenizeBody) -> dict[str, Any]:
    tokenizer, tokens = serving.engine.tokenizer, _token_ids(serving, body)
    return {
        "count": len(tokens),
        "max_model_len": serving.engine.window,
        "tokens": tokens,
        "token_strs": tokenizer.convert_ids_to_tokens(tokens) if body.return_token_strs else None,
    }


def _token_ids(serving: Serving, body: TokenizeBody) -> list[int]:
    tokenizer, window = serving.engine.tokenizer, serving.engine.window
    if body.messages is None:
        text, special = body.prompt or "", body.add_special_tokens is not False
        refuse_overlong(tokenizer, text, window)
        ids: list[int] = tokenizer(text, add_special_tokens=special).input_ids
        return ids
    messages = [message.as_langchain() for message in body.messages]
    return serving.llm.message_token_ids(
        messages,
        body.tools,
        answer=body.add_generation_prompt,
        chat_template_kwargs=body.chat_template_kwargs,
        window=window,
    )


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    outside = [token for token in tokens if not 0 <= token < len(tokenizer)]
    if outside:
        raise RequestError(
            f"Token id {shown(outside[0])} in `tokens` is outside the vocabulary of {len(tokenizer)} tokens: "
            "use ids of /tokenize."
        )
    text: str = tokenizer.decode(tokens)
    return text
