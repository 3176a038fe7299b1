"""The application: one engine behind OpenAI's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from langchain_eft.base import VERSION
from langchain_eft.chat_models import EFTChatModel
from langchain_eft.server.access.body_limits import BodyMiddleware
from langchain_eft.server.access.draining import Draining, DrainingMiddleware
from langchain_eft.server.access.hosts import HostMiddleware
from langchain_eft.server.access.keys import KeyMiddleware
from langchain_eft.server.errors import install_error_handlers
from langchain_eft.server.monitoring import metrics
from langchain_eft.server.monitoring.queue_clock import QueueClock
from langchain_eft.server.monitoring.request_log import RecordMiddleware
from langchain_eft.server.policy import require_consistent
from langchain_eft.server.routes import (
    chat_completions,
    completions,
    docs,
    health,
    logprobs,
    models,
    playground,
    recipe,
    rewards,
    systemone,
    tokenization,
)
from langchain_eft.server.serving import Serving
from langchain_eft.server.settings import ServerSettings

_ROUTES = (
    chat_completions, completions, systemone, rewards, logprobs, models, recipe, tokenization, health,
    metrics, docs, playground,
)  # fmt: skip


def create_app(llm: EFTChatModel, settings: ServerSettings) -> FastAPI:
    """The application. Its lifespan opens the engine in a thread; until then `/health` answers 503.

    Args:
        llm: The model that answers; its fields stand in for what a request leaves out.
        settings: What the operator sets.

    Raises:
        PolicyError: The settings' policies or mixtures do not fit the model.
    """
    require_consistent(llm, settings.policy, settings.key_policies, settings.mixtures)
    serving = Serving(llm, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(serving.open())
        yield
        opening.cancel()
        serving.threads.close()

    figures, queue_clock = metrics.Metrics(serving.stats), QueueClock(serving.stats)
    draining = Draining(settings.drain_seconds)
    # What every request passes, from the outside to the inside. A caller without a key is told as little as
    # possible: a foreign page is refused before its key is read, and only callers with a key send bodies.
    middleware = [
        Middleware(RecordMiddleware, settings, figures, queue_clock),  # everything is logged
        Middleware(HostMiddleware, settings),
        *_cors(settings),  # before keys, which browsers do not send when they ask for permission
        Middleware(KeyMiddleware, settings),
        Middleware(DrainingMiddleware, draining),
        Middleware(BodyMiddleware, settings),
    ]
    app = FastAPI(
        title="langchain-eft",
        version=VERSION,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        middleware=middleware,
    )
    app.state.serving, app.state.draining = serving, draining
    app.state.metrics, app.state.queue_clock = figures, queue_clock
    for module in _ROUTES:
        app.include_router(module.router)
    install_error_handlers(app)
    return app


def _cors(settings: ServerSettings) -> list[Middleware]:
    """What tells browsers which other sites may read answers; nothing where there are none."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("X-Request-Id", "Retry-After"),
        )
    ]
