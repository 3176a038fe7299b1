"""A middleware alone, over raw ASGI messages."""

import asyncio
import json
from dataclasses import dataclass, field


@dataclass
class Answered:
    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self):
        return json.loads(self.body)["error"]


@dataclass
class Inner:
    """What stands behind a middleware: it answers 200 and remembers what it was asked."""

    scopes: list = field(default_factory=list)
    bodies: list = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if scope["type"] == "http":
            self.bodies.append((await receive()).get("body"))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"served"})


def scope(path="/v1/models", method="GET", **headers):
    """A request; underscores in the names of headers are hyphens, and a list is a header given often."""
    headers = {"host": "127.0.0.1:8000", "content-type": "application/json", **headers}
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return {"type": "http", "method": method, "path": path, "headers": pairs, "state": {}}


async def ask(app, request, *pieces, pause=0.0):
    """What an application answers to a request with a body in these pieces."""
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]]
    waiting += [{"type": "http.request", "body": pieces[-1] if pieces else b"", "more_body": False}]
    answered = Answered()

    async def receive():
        await asyncio.sleep(pause)
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answered.body += message.get("body", b"")

    await app(request, receive, send)
    return answered
