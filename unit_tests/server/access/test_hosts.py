"""Web pages cannot reach a server through their visitor's browser."""

import httpx
import pytest

from langchain_eft.server.access.hosts import HostMiddleware
from langchain_eft.server.settings import ServerSettings
from unit_tests.server.asgi import Inner, ask, scope
from unit_tests.server.conftest import serving

PAGE = "https://chat.example.com"


async def asked(request, **settings):
    inner = Inner()
    answered = await ask(HostMiddleware(inner, ServerSettings(**settings)), request)
    assert bool(inner.scopes) == (answered.status == 200)
    return answered


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "localhost.", "[::1]:8000", "192.168.1.4"],
)
async def test_addresses_and_localhost_are_known(host):
    assert (await asked(scope(host=host))).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
     "evil@127.0.0.1", "127.0.0.1:8000:9", "[::1", "[localhost]", "", " ", "127.0.0.1/", "2130706433",
     "0x7f.1", "loc\xe4lhost", "[::1%eth0]",
     ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "evil.example"], []],
)  # fmt: skip
async def test_other_names_are_refused(host):
    answered = await asked(scope(host=host))
    assert (answered.status, answered.error["code"]) == (403, "unknown_host")
    assert "--allowed-host" in answered.error["message"]


async def test_an_operator_can_add_names():
    settings = {"allowed_hosts": ("EFT.example.com",)}
    assert (await asked(scope(host="eft.example.com"), **settings)).status == 200
    assert (await asked(scope(host="Eft.Example.com:443"), **settings)).status == 200
    assert (await asked(scope(host="other.example.com"), **settings)).status == 403
    assert (await asked(scope(host="box.lan:1"), host="box.lan", no_auth=True)).status == 200
    every = {"allowed_hosts": ("*",), "api_keys": {"alice": "0123456789"}}
    assert (await asked(scope(host="any.example"), **every)).status == 200
    assert (await asked(scope(host="any.example/"), **every)).status == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://127.0.0.1:8000"])
async def test_the_page_of_the_server_itself_may_call_it(origin):
    assert (await asked(scope(host="127.0.0.1:8000", origin=origin))).status == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://127.0.0.1:8001", "http://127.0.0.1", "127.0.0.1:8000",
     "http://127.0.0.1:8000.evil.example", "file://", "file://127.0.0.1:8000",
     "chrome-extension://127.0.0.1:8000", ["http://127.0.0.1:8000", "https://evil.example"]],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_other_pages_are_refused(origin, method):
    answered = await asked(scope(host="127.0.0.1:8000", origin=origin, method=method), cors_origins=(PAGE,))
    assert (answered.status, answered.error["code"]) == (403, "foreign_origin")


async def test_pages_that_the_operator_names_may_call():
    assert (await asked(scope(origin=PAGE), cors_origins=(PAGE,))).status == 200
    keys = {"api_keys": {"alice": "0123456789"}}
    assert (await asked(scope(origin="https://any.example"), cors_origins=("*",), **keys)).status == 200


@pytest.mark.parametrize("named", [True, False])
async def test_browsers_hear_which_pages_may_read_answers(llm, named):
    settings = {"api_keys": {"alice": "0123456789"}, "cors_origins": (PAGE,) if named else ()}
    preflight = {"origin": PAGE, "access-control-request-method": "POST",
                 "access-control-request-headers": "authorization,content-type,x-stainless-os"}  # fmt: skip
    async with serving(llm, **settings) as client:
        asked = await client.options("/v1/chat/completions", headers=preflight)
        unauthorized = await client.get("/v1/models", headers={"origin": PAGE})
    for answer, status in ((asked, 200), (unauthorized, 401)):
        assert isinstance(answer, httpx.Response)
        assert answer.status_code == (status if named else 403)
        assert answer.headers.get("access-control-allow-origin") == (PAGE if named else None)
    if named:
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
