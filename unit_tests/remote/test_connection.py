"""Requests, and when they are sent again."""

import asyncio
import gzip
import socket
import time
from traceback import format_exception

import httpx
import pytest
from pydantic import SecretStr

from langchain_eft.engine.errors import (
    EngineClosedError,
    EngineUnreachableError,
    PermissionDeniedError,
    QueueFullError,
)
from langchain_eft.remote import connection as module
from langchain_eft.remote.connection import Connection
from langchain_eft.remote.endpoint import Endpoint
from unit_tests.helpers import PATIENCE, slow
from unit_tests.remote.scripted_server import Scripted, refusal

LARGEST = 10**5

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def connection():
    connection = Connection()
    yield connection
    connection._end()


@pytest.fixture
def endpoint(scripted):
    return Endpoint(url=scripted.url, max_retries=2)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("status", [429, *slow(503)])
def test_a_busy_server_is_asked_again_when_it_says(connection, scripted, endpoint, status):
    scripted.script = [
        refusal(status, Retry_After="0"),
        refusal(status, Retry_After="1"),
        Scripted(body={"a": 1}),
    ]
    start = time.monotonic()
    assert connection.post(endpoint, "/completions", {"b": 2}, {}).json() == {"a": 1}
    assert time.monotonic() - start > 1
    assert scripted.bodies == [{"b": 2}] * 3


@pytest.mark.parametrize(("status", "kind"), [(429, QueueFullError), (503, EngineClosedError)])
def test_after_the_last_attempt_the_refusal_is_raised(connection, scripted, endpoint, status, kind):
    scripted.script = [refusal(status, "come back", Retry_After="0")] * 3
    with pytest.raises(kind, match="come back"):
        connection.get(endpoint, "/models", LARGEST)
    assert len(scripted.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503),
        refusal(429, Retry_After="3600"),
        refusal(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
        refusal(500, Retry_After="0"),
        refusal(403, Retry_After="0"),
    ],
)
def test_what_may_have_been_begun_or_would_wait_long_is_not_sent_again(
    connection, scripted, endpoint, answer
):
    scripted.script = [answer]
    with pytest.raises(Exception, match=f"status {answer.status}"):
        connection.get(endpoint, "/models", LARGEST)
    assert len(scripted.asked) == 1


def test_a_server_that_loads_is_waited_for(connection, scripted):
    error = {"message": "The model is still loading", "code": "loading"}
    loading = Scripted(503, {"error": error}, {"Retry-After": "0"})
    scripted.script = [loading, loading, Scripted(body={"a": 1})]
    answer = connection.get(Endpoint(url=scripted.url, max_retries=0), "/models", LARGEST)
    assert answer.json() == {"a": 1}


def test_no_retries_means_none(connection, scripted):
    scripted.script = [refusal(429, Retry_After="0")]
    with pytest.raises(QueueFullError):
        connection.get(Endpoint(url=scripted.url, max_retries=0), "/models", LARGEST)


def test_a_request_that_was_sent_and_not_answered_is_not_sent_again(connection, scripted, endpoint):
    scripted.script = [Scripted(body=b"{", cut=True)]
    with pytest.raises(EngineUnreachableError, match="fails"):
        connection.get(endpoint, "/models", LARGEST)
    assert len(scripted.asked) == 1


def test_where_nothing_listens_the_address_is_named(connection):
    url = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(EngineUnreachableError, match=f"{url}/models"):
        connection.get(Endpoint(url=url), "/models", LARGEST)


def test_a_server_that_starts_meanwhile_is_reached(connection, scripted, endpoint, monkeypatch):
    attempts = []

    async def send(request, **options):
        attempts.append(request)
        if len(attempts) < 3:
            raise httpx.ConnectError("refused")
        return await real(request, **options)

    real = connection._client.send
    monkeypatch.setattr(connection._client, "send", send)
    scripted.script = [Scripted(body={"a": 1})]
    assert connection.get(endpoint, "/models", LARGEST).json() == {"a": 1}


def test_redirects_are_not_followed(connection, scripted, endpoint):
    scripted.script = [Scripted(302, b"", {"Location": f"{scripted.url}/models"})]
    with pytest.raises(Exception, match="status 302"):
        connection.get(endpoint, "/models", LARGEST)


def test_the_key_is_in_every_request(connection, scripted):
    scripted.script = [refusal(403, "not you")]
    with pytest.raises(PermissionDeniedError, match="not you"):
        connection.get(Endpoint(url=scripted.url, api_key="secret-of-alice"), "/models", LARGEST)
    assert scripted.asked[0][2]["Authorization"] == "Bearer secret-of-alice"


def test_connections_are_used_again_from_event_loops_that_come_and_go(connection, scripted, endpoint):
    scripted.script = [Scripted(body={"number": number}) for number in range(6)]

    async def ask():
        return await asyncio.to_thread(connection.get, endpoint, "/models", LARGEST)

    answers = [asyncio.run(ask()).json()["number"] for _ in range(3)]
    answers += [connection.get(endpoint, "/models", LARGEST).json()["number"] for _ in range(3)]
    assert answers == [0, 1, 2, 3, 4, 5]


def test_cookies_are_not_sent_back(connection, scripted, endpoint):
    scripted.script = [
        Scripted(body={}, headers={"Set_Cookie": "session=of-alice; Path=/"}),
        Scripted(body={}),
    ]
    for _ in range(2):
        connection.get(endpoint, "/models", LARGEST)
    assert "Cookie" not in scripted.asked[-1][2]


def test_what_http_cannot_send_is_not_shown(connection, scripted):
    endpoint = Endpoint(url=scripted.url).model_copy(update={"api_key": SecretStr("sesame\n")})  # unchecked
    with pytest.raises(EngineUnreachableError) as caught:
        connection.get(endpoint, "/models", LARGEST)
    assert "sesame" not in "".join(format_exception(caught.value))


def test_an_address_that_only_httpx_refuses_is_an_error_of_this_package(connection):
    with pytest.raises(EngineUnreachableError, match="base_url"):
        connection.get(Endpoint(url="http://exa\u200bmple/v1"), "/models", LARGEST)


def test_bodies_are_not_unpacked(connection, scripted, endpoint):
    packed, header = gzip.compress(b"0" * 10**6), {"Content_Encoding": "gzip"}
    scripted.script = [Scripted(body=packed, headers=header), Scripted(500, packed, header)]
    with pytest.raises(ValueError, match="compressed"):
        connection.get(endpoint, "/models", LARGEST)
    assert scripted.asked[0][2]["Accept-Encoding"] == "identity"
    with pytest.raises(Exception, match="status 500: no reason"):
        connection.get(endpoint, "/models", LARGEST)


def test_a_body_without_end_is_not_read_to_its_end(connection, scripted, endpoint, monkeypatch):
    scripted.script = [Scripted(endless=b"x" * 1000), Scripted(500, b"on fire: ", endless=b"x" * 1000)]
    with pytest.raises(ValueError, match=f"{LARGEST} bytes"):
        connection.get(endpoint, "/models", LARGEST)
    assert scripted.left.wait(PATIENCE)
    scripted.left.clear()
    with pytest.raises(Exception, match="status 500: on fire") as caught:
        connection.get(endpoint, "/models", LARGEST)
    assert len(str(caught.value)) < 1000
    assert scripted.left.wait(PATIENCE)


def test_a_body_that_drips_ends(connection, scripted, endpoint, monkeypatch):
    monkeypatch.setattr(module, "_BODY_SECONDS", 0.2)
    monkeypatch.setattr(module, "_REFUSAL_SECONDS", 0.2)
    drip = {"endless": b"x", "pause": 0.02}
    scripted.script = [Scripted(**drip), Scripted(500, b"on fire", **drip)]
    with pytest.raises(EngineUnreachableError):
        connection.get(endpoint, "/models", LARGEST)
    with pytest.raises(Exception, match="status 500: on fire"):
        connection.get(endpoint, "/models", LARGEST)


def test_a_server_that_says_nothing_is_unreachable(connection, monkeypatch):
    monkeypatch.setattr(module, "_SHORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EngineUnreachableError, match=str(port)):
            connection.get(Endpoint(url=f"http://127.0.0.1:{port}"), "/models", LARGEST)
