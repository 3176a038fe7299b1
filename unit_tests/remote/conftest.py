import threading
from contextlib import contextmanager

import pytest
import uvicorn

from langchain_eft import EFTChatModel
from langchain_eft.remote import connection
from langchain_eft.remote.registry import close_all
from langchain_eft.server.app import create_app
from langchain_eft.server.settings import ServerSettings
from unit_tests.helpers import PATIENCE, wait_until
from unit_tests.remote.scripted_server import scripted_server


@pytest.fixture(autouse=True)
def forgotten_engines():
    """A test leaves no remote engine for the next one."""
    yield
    close_all()


@pytest.fixture
def impatient(monkeypatch):
    """Pauses between attempts are short."""
    monkeypatch.setattr(connection, "_pause", lambda attempt: 0.01)


@pytest.fixture
def scripted():
    with scripted_server() as running:
        yield running


class Served(str):
    """The address of a server, with its application."""

    __slots__ = ("app",)


@contextmanager
def serving_thread(llm, **settings):
    """A server in a thread, once its engine is open."""
    app = create_app(llm, ServerSettings(**settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started and app.state.serving.is_open)
    served = Served(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    served.app = app
    yield served
    server.should_exit = True
    thread.join(PATIENCE)


@pytest.fixture(scope="module")
def served(tool_settings):
    """The address of a server with the tiny family."""
    with serving_thread(EFTChatModel(**tool_settings)) as served:
        yield served
