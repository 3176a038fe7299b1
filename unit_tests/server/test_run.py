"""The process of a server: where it listens, and when it ends by itself."""

import socket
import threading

import httpx
import pytest

from langchain_eft import EFTChatModel
from langchain_eft.engine.errors import DeviceLostError
from langchain_eft.errors import EFTModelNotFoundError
from langchain_eft.server.app import create_app
from langchain_eft.server.run import AddressError, base_url, listen, run
from langchain_eft.server.settings import ServerSettings
from unit_tests.helpers import PATIENCE, wait_until


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        ("0.0.0.0", "http://127.0.0.1:"),  # noqa: S104
        ("::1", "http://[::1]:"),
    ],
)
def test_a_free_port_is_found_and_said(host, url):
    with listen(host, 0) as listening:
        assert base_url(listening).startswith(url)
        assert base_url(listening).endswith(f":{listening.getsockname()[1]}")
        socket.create_connection(listening.getsockname()[:2]).close()


def test_connections_send_small_pieces_at_once():
    """Otherwise the first bytes of every answer come 40 ms late."""
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_refused_with_the_remedy():
    with (
        listen("127.0.0.1", 0) as taken,
        pytest.raises(AddressError, match=r"Address already in use.*--port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])


class Running(threading.Thread):
    """A server in a thread, and what it raises at its end."""

    def __init__(self, llm):
        super().__init__(daemon=True)
        self.app, self.listening, self.error = create_app(llm, ServerSettings()), listen("127.0.0.1", 0), None
        self.url = base_url(self.listening)
        self.start()

    def run(self):
        try:
            run(self.app, self.listening)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.listening.close()

    def ended(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error


@pytest.fixture
def own(settings):
    """A model whose engine no other test uses."""
    return EFTChatModel(**{**settings, "engine_options": {"kv_cache_tokens": 1024}})


def test_it_ends_when_its_device_has_failed(own):
    running = Running(own)
    wait_until(lambda: running.app.state.serving.is_open)
    assert httpx.get(f"{running.url}/health").status_code == 200
    own.engine.close()
    assert isinstance(running.ended(), DeviceLostError)


def test_it_ends_when_the_weights_cannot_be_loaded(settings, tmp_path):
    broken = EFTChatModel(**{**settings, "model": str(tmp_path)})
    assert isinstance(Running(broken).ended(), EFTModelNotFoundError)


def test_it_ends_without_an_error_once_it_has_drained(own):
    running = Running(own)
    wait_until(lambda: running.app.state.serving.is_open)
    running.app.state.draining.begin()
    assert running.ended() is None
