from contextlib import asynccontextmanager

import httpx
import pytest

from langchain_eft import EFTChatModel
from langchain_eft.server.app import create_app
from langchain_eft.server.settings import ServerSettings
from unit_tests.helpers import await_until


@asynccontextmanager
async def serving(llm, **settings):
    """A client of the application, once its engine is open; `client.app` is the application."""
    app = create_app(llm, ServerSettings(**settings))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        client.base_url = "http://127.0.0.1"
        client.app = app
        await await_until(lambda: app.state.serving.is_open)
        yield client


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


@pytest.fixture
async def client(llm):
    async with serving(llm) as client:
        yield client
