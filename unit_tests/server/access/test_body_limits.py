"""Bodies that are too large or too slow."""

import json

import pytest

from langchain_eft.server.access.body_limits import BodyMiddleware
from langchain_eft.server.settings import ServerSettings
from unit_tests.server.asgi import Inner, ask, scope

SMALL = {"max_body_bytes": 1000}


async def posted(*pieces, pause=0.0, headers=None, method="POST", **settings):
    inner = Inner()
    app = BodyMiddleware(inner, ServerSettings(**settings))
    answered = await ask(app, scope(method=method, **(headers or {})), *pieces, pause=pause)
    assert bool(inner.scopes) == (answered.status == 200)
    return answered, inner


async def test_a_body_arrives_in_one_piece_and_then_the_client_may_leave():
    said = []

    async def app(scope, receive, send):
        said.extend([await receive(), await receive()])

    await ask(BodyMiddleware(app, ServerSettings()), scope(method="POST"), b'{"a"', b": ", b"1}")
    assert said == [
        {"type": "http.request", "body": b'{"a": 1}', "more_body": False},
        {"type": "http.disconnect"},
    ]


async def test_a_body_without_an_end_is_served_to_nobody():
    inner = Inner()

    async def receive():
        return {"type": "http.disconnect"}

    await BodyMiddleware(inner, ServerSettings())(scope(method="POST"), receive, None)
    assert inner.scopes == []


@pytest.mark.parametrize("length", ["1001", "100000000", "9" * 5000, "-1", "x", "1_0", "\xb2"])
async def test_a_length_that_is_too_large_is_refused_before_the_body_is_read(length):
    read = []

    async def receive():
        read.append(1)

    sent = []

    async def send(message):
        sent.append(message)

    app = BodyMiddleware(Inner(), ServerSettings(**SMALL))
    await app(scope(method="POST", content_length=length), receive, send)
    assert (sent[0]["status"], read) == (413, [])
    assert (b"connection", b"close") in sent[0]["headers"]  # what follows is no request


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("headers", [{}, {"content_length": "10"}])
async def test_a_body_that_grows_too_large_is_refused_while_it_is_read(method, headers):
    endless = [b" " * 100] * 10_000
    answered, _ = await posted(*endless, method=method, headers=headers, **SMALL)
    assert (answered.status, answered.error["code"]) == (413, "body_too_large")
    assert "1000 bytes" in answered.error["message"]


async def test_a_body_of_exactly_the_limit_is_served():
    body = json.dumps("x" * 998).encode()
    assert (await posted(body[:500], body[500:], headers={"content_length": "1000"}, **SMALL))[
        0
    ].status == 200


async def test_a_slow_body_is_given_up():
    answered, _ = await posted(*[b" "] * 1000, pause=0.02, body_seconds=0.1)
    assert (answered.status, answered.error["code"]) == (408, "slow_body")
    assert answered.headers["connection"] == "close"
