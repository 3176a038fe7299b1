"""A client that leaves when it is told to."""

import asyncio
import json

LONG = {"max_tokens": 900, "speculation": "off", "logit_bias": {"0": -100}}
"""An answer that goes on until the client has left."""


class Leaver:
    """Sends one request, over raw ASGI messages."""

    def __init__(self, body):
        self.sent = []
        self._left = asyncio.Event()
        self._body = json.dumps(body).encode()

    def leave(self):
        self._left.set()

    async def send(self, message):
        self.sent.append(message)

    async def receive(self):
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    def call(self, app, path):
        """Start the request; the task ends with it."""
        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        return asyncio.create_task(app(scope, self.receive, self.send))
