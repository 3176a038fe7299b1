"""The end of a server: running answers end, new requests are refused."""

import asyncio

from langchain_eft.server.access.draining import Draining, DrainingMiddleware
from unit_tests.server.asgi import Inner, ask, scope
from unit_tests.server.conftest import serving


async def test_running_answers_end_and_new_requests_are_refused():
    finish = asyncio.Event()

    async def slow(scope, receive, send):
        await finish.wait()
        await Inner()(scope, receive, send)

    draining = Draining(30)
    app = DrainingMiddleware(slow, draining)
    running = asyncio.create_task(ask(app, scope()))
    await asyncio.sleep(0)
    assert (draining.running, draining.begun, draining.over) == (1, False, False)
    draining.begin()
    assert not draining.over
    refused = await ask(app, scope())
    assert (refused.status, refused.error["code"], draining.running) == (503, "draining", 1)
    assert 1 <= int(refused.headers["retry-after"]) <= 31
    assert refused.headers["connection"] == "close"
    finish.set()
    assert (await running).status == 200
    assert draining.over


async def test_a_request_that_fails_is_not_waited_for():
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    draining = Draining(30)
    try:
        await ask(DrainingMiddleware(broken, draining), scope())
    except ZeroDivisionError:
        draining.begin()
    assert draining.over


async def test_time_is_up_whatever_runs():
    draining = Draining(0)
    draining.running = 1
    draining.begin()
    assert draining.over


async def test_monitors_see_a_server_that_drains(llm):
    async with serving(llm) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        client._transport.app.state.draining.begin()
        health = await client.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 503
