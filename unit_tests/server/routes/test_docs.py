"""`/docs` works without the network."""

from html.parser import HTMLParser


class Loads(HTMLParser):
    """What a page loads, and the scripts in it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in {"script", "img", "iframe", "link", "object", "embed"} else []


async def test_the_docs_show_every_route_and_load_nothing(client):
    answer = await client.get("/docs")
    assert answer.status_code == 200
    loads = Loads()
    loads.feed(answer.text)
    assert loads.found == []
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/health", "/metrics"):
        assert path in answer.text
    for field in ("max_completion_tokens", "mixture", "grammar", "answer_prefix"):
        assert f"<code>{field}</code>" in answer.text
    assert "Weight of each behavior" in answer.text


async def test_programs_read_the_same(client):
    described = (await client.get("/openapi.json")).json()
    body = described["components"]["schemas"]["ChatBody"]
    assert {"model", "messages"} <= set(body["required"])
    assert "upscale_strength" in body["properties"]
