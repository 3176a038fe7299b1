"""The application: one engine behind OpenAI's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from langchain_eft.chat_models import EFTChatModel
from langchain_eft.server import chat_completions, completions, health, models, tokenization
from langchain_eft.server.errors import install_error_handlers
from langchain_eft.server.keys import KeyMiddleware
from langchain_eft.server.request_log import RecordMiddleware
from langchain_eft.server.serving import Serving
from langchain_eft.server.settings import ServerSettings


def create_app(llm: EFTChatModel, settings: ServerSettings) -> FastAPI:
    """The application. Its lifespan opens the engine in a thread; until then `/health` answers 503.

    Args:
        llm: The model that answers; its fields stand in for what a request leaves out.
        settings: What the operator sets.
    """
    serving = Serving(llm, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(serving.open())
        yield
        opening.cancel()

    app = FastAPI(title="langchain-eft", lifespan=lifespan)
    app.state.serving = serving
    for module in (health, models, chat_completions, completions, tokenization):
        app.include_router(module.router)
    install_error_handlers(app)
    app.add_middleware(KeyMiddleware, settings.policy)
    app.add_middleware(RecordMiddleware)  # the outermost
    return app
