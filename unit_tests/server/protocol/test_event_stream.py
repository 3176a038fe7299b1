"""Streams are valid server-sent events, whatever an answer holds and however long it waits."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from langchain_eft.engine.errors import QueueFullError
from langchain_eft.server.protocol import event_stream
from langchain_eft.server.protocol.event_stream import json_bytes


class Request:
    """What an event stream asks of a request."""

    def __init__(self):
        self.scope = {"type": "http", "method": "POST", "state": {}}
        settings = SimpleNamespace(drain_seconds=1.0)
        self.app = SimpleNamespace(state=SimpleNamespace(serving=SimpleNamespace(settings=settings)))
        self.state = SimpleNamespace(request_id="req-1")
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


async def sent(request, response):
    """What a response sends."""
    body = b""

    async def send(message):
        nonlocal body
        body += message.get("body", b"")

    await asyncio.wait_for(response(request.scope, request.receive, send), 10)
    return body.decode()


async def chunks(*values, pause=0.0, error=None):
    for value in values:
        await asyncio.sleep(pause)
        yield {"said": value}
    if error:
        raise error


async def test_line_breaks_and_infinite_numbers_are_json_in_one_line():
    text = "a\nb\r\nc\u2028d\x85e\x00"
    request = Request()
    response = await event_stream.event_stream(request, chunks(text, float("-inf")))
    first, second, done, rest = (await sent(request, response)).split("\n\n")
    assert json.loads(first.removeprefix("data: ")) == {"said": text}
    assert json.loads(second.removeprefix("data: ")) == {"said": None}
    assert (done, rest) == ("data: [DONE]", "")
    assert json.loads(json_bytes({"said": float("nan")})) == {"said": None}


async def test_proxies_are_told_not_to_buffer():
    response = await event_stream.event_stream(Request(), chunks("a"))
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_stream_that_waits_sends_comments(monkeypatch):
    monkeypatch.setattr(event_stream, "_PATIENCE", 0.01)
    monkeypatch.setattr(event_stream.EventSourceResponse, "DEFAULT_PING_INTERVAL", 0.02)
    request = Request()
    response = await event_stream.event_stream(request, chunks("late", pause=0.1))
    events = (await sent(request, response)).split("\n\n")
    assert events[0] == ": ping"
    # On a busy machine one more may be sent at the end.
    assert [event for event in events if event != ": ping"] == ['data: {"said":"late"}', "data: [DONE]", ""]


async def test_an_error_before_the_first_chunk_has_its_own_status():
    with pytest.raises(QueueFullError):
        await event_stream.event_stream(Request(), chunks(error=QueueFullError.of(1, 1)))


async def test_a_late_error_is_an_event(monkeypatch):
    monkeypatch.setattr(event_stream, "_PATIENCE", 0.01)
    request = Request()
    pieces = chunks("a", pause=0.05, error=QueueFullError.of(1, 1))
    response = await event_stream.event_stream(request, pieces)
    _, error, done, _ = (await sent(request, response)).split("\n\n")
    assert "queue is full" in json.loads(error.removeprefix("data: "))["error"]["message"]
    assert done == "data: [DONE]"


@pytest.mark.parametrize("patience", [0.01, 10])
async def test_the_chunks_are_closed_when_the_client_leaves(monkeypatch, patience):
    monkeypatch.setattr(event_stream, "_PATIENCE", patience)
    closed = asyncio.Event()

    async def endless():
        try:
            await asyncio.sleep(60)
            yield {}
        finally:
            closed.set()

    async def serve(request):
        await sent(request, await event_stream.event_stream(request, endless()))

    request = Request()
    serving = asyncio.create_task(serve(request))
    await asyncio.sleep(0.05)
    request.left.set()
    await asyncio.wait_for(asyncio.wait({serving}), 5)
    assert closed.is_set()
    assert patience < 1 or serving.exception().status == 499


async def test_the_chunks_are_closed_when_the_client_has_left_before_the_first_is_sent():
    closed = asyncio.Event()

    async def endless():
        try:
            while True:
                yield {}
        finally:
            closed.set()

    request = Request()
    response = await event_stream.event_stream(request, endless())
    request.left.set()

    async def send(message):
        await asyncio.sleep(0)

    await asyncio.wait_for(response(request.scope, request.receive, send), 5)
    assert closed.is_set()
