"""The page is served with headers under which it can load and run nothing but its own files."""

import re
from pathlib import Path

import httpx
import pytest

from langchain_eft.server.routes import playground
from unit_tests.server.conftest import serving

FOLDER = Path(playground.__file__).parents[1] / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture
async def client(llm):
    async with serving(llm, api_keys={"alice": "s3cret-of-alice"}) as client:
        yield client


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
async def test_every_file_is_served_without_a_key_under_strict_headers(client, path):
    answer = await client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_browser_that_has_a_file_gets_no_second_copy(client):
    first = await client.get("/page/main.js")
    assert "javascript" in first.headers["content-type"]
    again = await client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fplayground.py", "%2e%2e", "index.html%00"])
async def test_nothing_else_is_served(client, name):
    answer = await client.get(httpx.URL("http://127.0.0.1", raw_path=f"/page/{name}".encode()))
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_the_page_is_small_and_loads_only_its_own_files():
    assert sum((FOLDER / name).stat().st_size for name in FILES) < 100_000
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    for name in FILES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href|import|from|url)\W{1,3}(?:https?:)?//", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
