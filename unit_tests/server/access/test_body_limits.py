"""Bodies that are too large, too slow, too deep, or no JSON."""

import json
import time

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


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"hi", "not JSON"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
        (b"\xff\xfe", "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b"9" * 5000, "not JSON"),
        (b'{"mixture": {"one": 0, "one": 9}}', "the key 'one' occurs twice"),
        (b'{"mixture": {"one": 0, "\\u006fne": 9}}', "the key 'one' occurs twice"),
        (b'{"a": {}, "b": 2, "a": 1}', "the key 'a' occurs twice"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "occurs twice"),
    ],
)
async def test_what_is_no_json_is_refused(body, complaint):
    answered, _ = await posted(body)
    assert (answered.status, answered.error["code"]) == (400, "invalid_json")
    assert complaint in answered.error["message"]


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [65, 1000, 200_000])
async def test_a_body_that_is_nested_too_deeply_is_refused(opening, depth):
    closing = "]" if opening == "[" else "}"
    body = (opening * depth + "1" + closing * depth).encode()
    answered, _ = await posted(body)
    assert (answered.status, answered.error["code"]) == (400, "too_deep")


async def test_nesting_up_to_the_limit_is_served():
    assert (await posted(("[" * 64 + "]" * 64).encode()))[0].status == 200
    assert (await posted(("[" * 64 + "1" + "]" * 64).encode()))[0].status == 200
    assert (await posted(json.dumps({"a": "[" * 1000}).encode()))[0].status == 200


async def test_large_bodies_of_many_parts_take_no_longer_than_their_size_deserves():
    names = {f"{i}": i for i in range(100_000)}
    twice = json.dumps(names)[:-1] + ', "99999": 1}'
    started = time.perf_counter()
    assert (await posted(json.dumps(names).encode()))[0].status == 200
    assert (await posted(twice.encode()))[0].status == 400
    assert (await posted(b"[" + b"[]," * 200_000 + b"[]]"))[0].status == 200
    assert time.perf_counter() - started < 30  # a quadratic search takes minutes


@pytest.mark.parametrize(("count", "status"), [(128, 200), (129, 400), (10_000, 400)])
async def test_a_request_has_a_bounded_number_of_tools(count, status):
    tool = {"type": "function", "function": {"name": "f"}}
    answered, _ = await posted(json.dumps({"tools": [tool] * count}).encode())
    assert answered.status == status
    if status == 400:
        assert (answered.error["param"], answered.error["code"]) == ("tools", "array_above_max_length")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'"x"', b'{"tools": 5}', b'{"tools": {"a": 1}}'])
async def test_what_the_body_means_is_left_to_the_route(body):
    assert (await posted(body))[1].bodies == [body]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/jsonp"])
async def test_a_body_that_does_not_say_that_it_is_json_is_refused(kind):
    """A page of another site can send these kinds without asking the browser."""
    answered, _ = await posted(b"{}", headers={"content-type": kind})
    assert answered.status == 415
    assert "Content-Type: application/json" in answered.error["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_may_be_written_in_other_ways(kind):
    answered, _ = await posted(b"{}", headers={"content-type": kind})
    assert answered.status == 200
