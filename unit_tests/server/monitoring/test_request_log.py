"""One line about each request, and an id by which it is found."""

import json
import logging

import pytest

from langchain_eft.server.errors import HTTPError
from langchain_eft.server.monitoring.metrics import Metrics
from langchain_eft.server.monitoring.queue_clock import QueueClock
from langchain_eft.server.monitoring.request_log import RecordMiddleware, logger
from langchain_eft.server.settings import ServerSettings
from unit_tests.server.asgi import Inner, ask, scope
from unit_tests.server.conftest import serving

SECRET = "the-secret-word"
BODY = {"model": "base", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 4}


@pytest.fixture
def lines():
    """The log, one dictionary a line."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            text = record.getMessage()
            assert "\n" not in text
            found.append(json.loads(text))

    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def recorded(app, **settings):
    return RecordMiddleware(app, ServerSettings(**settings), Metrics(lambda: None), QueueClock(lambda: None))


def requests(lines):
    return [line for line in lines if "request_id" in line]


@pytest.mark.parametrize("given", ["abc", "req-0A_.:1", "x" * 128])
async def test_a_sane_id_is_kept(lines, given):
    answered = await ask(recorded(Inner()), scope(x_request_id=given))
    assert answered.headers["x-request-id"] == requests(lines)[0]["request_id"] == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "a b",
        "a\r\nSet-Cookie: x=y",
        "a\nb",
        '"}',
        "\xe9",
        "x" * 129,
        "-a",
        ["a", "b"],
        "<script>",
        "a\x00",
    ],
)
async def test_any_other_id_is_replaced(lines, given):
    answered = await ask(recorded(Inner()), scope(x_request_id=given))
    made = answered.headers["x-request-id"]
    assert made.startswith("req-")
    assert len(made) == 36
    assert requests(lines)[0]["request_id"] == made


async def test_ids_differ(lines):
    app = recorded(Inner())
    assert len({(await ask(app, scope())).headers["x-request-id"] for _ in range(50)}) == 50


@pytest.mark.parametrize("stream", [False, True])
async def test_a_line_says_what_was_decoded_and_not_what_was_said(llm, lines, stream):
    keys = {"alice": "0123456789"}
    async with serving(llm, api_keys=keys) as client:
        client.headers["authorization"] = "Bearer 0123456789"
        answer = await client.post(
            "/v1/chat/completions", json={**BODY, "mixture": {"two": 0.5}, "stream": stream}
        )
        assert answer.status_code == 200
    (line,) = requests(lines)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["key"], line["method"], line["path"], line["status"]) == (
        "alice",
        "POST",
        "/v1/chat/completions",
        200,
    )
    assert (line["model"], line["mixture"], line["stream"]) == ("base", {"two": 0.5}, stream)
    assert (line["completion_tokens"], line["finish_reasons"]) == (4, ["length"])
    assert line["prompt_tokens"] > 4
    assert 0 < line["time_to_first_token"] <= line["seconds"]
    assert SECRET not in json.dumps(lines)
    assert "0123456789" not in json.dumps(lines)


@pytest.mark.parametrize(
    "body", [{**BODY, "temperature": SECRET}, {**BODY, "stop": [SECRET, 5]}, {**BODY, "stop": 5, SECRET: 1}]
)
async def test_a_refused_request_is_logged_without_its_texts(llm, lines, body):
    async with serving(llm) as client:
        answer = await client.post("/v1/chat/completions", json=body)
    (line,) = requests(lines)
    assert (line["status"], 400 <= line["status"] < 500) == (answer.status_code, True)
    assert line["error"]
    assert SECRET not in json.dumps(lines)


async def test_texts_are_logged_if_the_operator_wants_them(llm, lines):
    async with serving(llm, log_texts=True) as client:
        said = (await client.post("/v1/chat/completions", json=BODY)).json()["choices"][0]["message"][
            "content"
        ]
        await client.post("/v1/chat/completions", json={**BODY, "temperature": -1})
    answered, refused = requests(lines)
    assert answered["body"]["messages"][0]["content"] == SECRET
    assert answered["texts"] == [said]
    assert "temperature" in refused["error_message"]


async def test_what_monitors_ask_is_logged_only_if_it_fails(llm, lines):
    async with serving(llm) as client:
        for path in ("/health", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert requests(lines) == []
        client._transport.app.state.draining.begin()
        await client.get("/health")
    assert [line["path"] for line in requests(lines)] == ["/health"]


async def test_a_bug_is_answered_and_its_traceback_is_in_the_line(lines):
    async def broken(scope, receive, send):
        raise ZeroDivisionError("secret")

    answered = await ask(recorded(broken), scope())
    assert (answered.status, answered.error["code"]) == (500, "internal_error")
    (line,) = requests(lines)
    assert (line["status"], line["error"]) == (500, "internal_error")
    assert "ZeroDivisionError" in line["traceback"]
    assert answered.error["request_id"] == line["request_id"] == answered.headers["x-request-id"]


async def test_a_bug_in_mid_answer_breaks_the_connection(lines):
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(recorded(broken), scope())
    assert [(line["status"], line["error"]) for line in requests(lines)] == [(499, "internal_error")]


async def test_an_answer_that_its_client_left_has_a_status_of_its_own(lines):
    async def left(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    await ask(recorded(left), scope())
    assert [line["status"] for line in requests(lines)] == [499]


@pytest.mark.parametrize("path", ["/a\nb", "/" + "x" * 5000, '/"}{', "/\u2028\x1b[31m"])
async def test_paths_cannot_forge_lines(lines, path):
    await ask(recorded(Inner()), scope(path))
    assert requests(lines)[0]["path"] == path[:200]


async def test_errors_of_a_middleware_are_logged_by_their_code(lines):
    from langchain_eft.server.errors import send_error

    async def refusing(scope, receive, send):
        await send_error(HTTPError(403, f"no {SECRET}", code="policy"), scope, receive, send)

    await ask(recorded(refusing), scope())
    assert requests(lines)[0]["error"] == "policy"
    assert SECRET not in json.dumps(lines)
