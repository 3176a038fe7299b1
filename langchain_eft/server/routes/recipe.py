"""`/v1/recipe` and `/v1/tokenizers`: for clients that render prompts and read answers for themselves."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from langchain_eft.remote.description import Description
from langchain_eft.remote.error_table import ServerChangedError
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.routes.models import mixture_of

router = APIRouter()


@router.get("/v1/recipe")
async def describe_recipe(model: str, request: Request) -> Response:
    """A model, or one of its mixtures: names of weights, behaviors that the caller may use, limits.

    The header `ETag` is the same as long as the server has the same models. `/v1/completions` and
    `/v1/rewards` refuse another one in `If-Match`, with status 412.
    """
    serving, policy = request.app.state.serving, request.state.caller.policy
    whole: Description = await asyncio.to_thread(lambda: serving.description)
    usable = {name for name in whole.recipe.behaviors if policy.range(name) is not None}
    body = whole.for_caller(usable, mixture_of(serving, model)).model_dump_json()
    return Response(body, headers={"ETag": _etag(whole)}, media_type="application/json")


@router.get("/v1/tokenizers/{digest}")
async def send_tokenizer(digest: str, request: Request) -> Response:
    """The tokenizer's files, by the hash that `/v1/recipe` names. They never change, so clients keep them."""
    files = await asyncio.to_thread(lambda: request.app.state.serving.tokenizer_files)
    if digest != files.hash:
        raise HTTPError(
            404, "This server has another tokenizer: ask /v1/recipe for its hash.", code="unknown_tokenizer"
        )
    return Response(
        files.model_dump_json(),
        headers={"Cache-Control": "private, max-age=31536000, immutable"},
        media_type="application/json",
    )


async def require_match(request: Request) -> None:
    """Refuse a client that has rendered its prompts for other models.

    Raises:
        ServerChangedError: If the client names another `ETag` than that of `/v1/recipe`.
    """
    expected = request.headers.get("if-match")
    if expected is None:
        return
    serving = request.app.state.serving
    if expected != _etag(await asyncio.to_thread(lambda: serving.description)):
        raise ServerChangedError(
            "The server has other models now than when this client asked for /v1/recipe: ask again, and "
            "render the prompt anew."
        )


def _etag(description: Description) -> str:
    return f'"{description.fingerprint}"'
