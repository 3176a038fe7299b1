"""What is no JSON, nested too deeply, of too many parts, or does not fit a route is refused in words."""

import json
import time
from importlib import import_module
from pkgutil import iter_modules

import pytest

from langchain_eft.server import routes
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.protocol.body_route import BodyRoute, parse_json


def refusal(body):
    with pytest.raises(HTTPError) as refused:
        parse_json(body, 64)
    assert refused.value.status == 400
    return refused.value


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
def test_what_is_no_json_is_refused(body, complaint):
    assert refusal(body).code == "invalid_json"
    assert complaint in refusal(body).message


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [65, 1000, 60_000])
def test_a_body_that_is_nested_too_deeply_is_refused(opening, depth):
    closing = "]" if opening == "[" else "}"
    body = (opening * depth + "1" + closing * depth).encode()
    assert refusal(body).code == "too_deep"


@pytest.mark.parametrize(
    "body", ["[" * 64 + "]" * 64, "[" * 64 + "1" + "]" * 64, json.dumps({"a": "[" * 1000})]
)
def test_nesting_up_to_the_limit_is_read(body):
    assert parse_json(body.encode(), 64) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[" + b"1," * (2**19 + 1) + b"1]", "524289 commas"),
        (b"[" + b"[]," * 2**17 + b"[]]", "131074 brackets, braces and colons"),
        (b"[" + b'{"":0},' * 2**16 + b"1]", "131073 brackets, braces and colons"),
        (json.dumps(dict.fromkeys(map(str, range(2049)), 1)).encode(), "an object with 2049 keys"),
    ],
)
def test_a_body_of_too_many_parts_is_refused(body, complaint):
    assert refusal(body).code == "too_many_parts"
    assert complaint in refusal(body).message


def test_bodies_up_to_the_limits_are_read_in_linear_time():
    started = time.process_time()
    parse_json(b"[" + b"[]," * 2**16 + b"[]]", 64)
    assert refusal(json.dumps(dict.fromkeys(map(str, range(2000)), 1))[:-1].encode() + b', "1999": 1}')
    assert time.process_time() - started < 30  # a quadratic search takes minutes


@pytest.mark.parametrize("count", [128, 129, 10_000])
async def test_a_request_has_a_bounded_number_of_tools(client, count):
    tools = [{"type": "function", "function": {"name": f"f{number}"}} for number in range(count)]
    asked = {
        "model": "base",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1,
        "tools": tools,
    }
    answer = await client.post("/v1/chat/completions", json={**asked, "tool_choice": "none"})
    assert answer.status_code == (200 if count == 128 else 400), answer.text
    if count > 128:
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == ("tools", "array_above_max_length")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/jsonp"])
async def test_a_body_that_does_not_say_that_it_is_json_is_refused(client, kind):
    """A page of another site can send these kinds without asking the browser."""
    answer = await client.post("/tokenize", content=b'{"prompt": "a"}', headers={"content-type": kind})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_may_be_written_in_other_ways(client, kind):
    answer = await client.post("/tokenize", content=b'{"prompt": "a"}', headers={"content-type": kind})
    assert answer.status_code == 200


def test_every_route_with_a_body_reads_it_in_a_thread():
    modules = [import_module(f"{routes.__name__}.{each.name}") for each in iter_modules(routes.__path__)]
    found = [route for module in modules for route in module.router.routes if "POST" in route.methods]
    assert len(found) >= 7
    assert all(isinstance(route, BodyRoute) for route in found)
