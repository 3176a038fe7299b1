"""Clients of a server: plain HTTP, and what a stream says when its pieces are put together."""

import json
from dataclasses import dataclass, field

import httpx

from integration_tests.serve_process import PATIENCE
from integration_tests.served.conftest import KEYS
from langchain_eft.remote.event_stream import event_data


def client(running, key="staff") -> httpx.AsyncClient:
    """A client with a key and as many connections as it needs."""
    return httpx.AsyncClient(
        base_url=running.url,
        headers={"authorization": f"Bearer {KEYS[key]}"},
        timeout=PATIENCE,
        limits=httpx.Limits(max_connections=None),
    )


def post(running, path, body, key="staff") -> httpx.Response:
    headers = {"authorization": f"Bearer {KEYS[key]}"}
    return httpx.post(f"{running.url}{path}", json=body, headers=headers, timeout=PATIENCE)


@dataclass
class Answer:
    """What an answer says, whether it came whole or in pieces."""

    content: str = ""
    calls: dict = field(default_factory=dict)
    """Name and arguments of each tool call, by its index."""

    token_ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    trace: list = field(default_factory=list)
    finish_reason: str | None = None
    eft: dict | None = None
    usage: dict | None = None

    @classmethod
    def of_whole(cls, body):
        (choice,) = body["choices"]
        return cls()._add(choice, choice["message"], body["usage"])

    @classmethod
    def of_chunks(cls, chunks):
        answer = cls()
        for chunk in chunks:
            for choice in chunk["choices"]:
                answer._add(choice, choice["delta"], None)
            answer.usage = chunk.get("usage") or answer.usage
        return answer

    def _add(self, choice, message, usage):
        self.content += message.get("content") or ""
        for number, call in enumerate(message.get("tool_calls") or ()):
            written = self.calls.setdefault(call.get("index", number), ["", ""])
            written[0] += call["function"].get("name") or ""
            written[1] += call["function"]["arguments"]
        self.token_ids += choice.get("token_ids") or []
        self.logprobs += (choice.get("logprobs") or {}).get("content") or []
        self.trace += choice.get("trace") or []
        self.finish_reason = choice["finish_reason"] or self.finish_reason
        self.eft = choice.get("eft") or self.eft
        self.usage = usage
        return self


async def stream(client, body) -> list[dict]:
    """The chunks of a stream, which ends as it should."""
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200, await response.aread()
        data = [each async for each in event_data(response.aiter_bytes(), longest=2**24)]
    assert data.pop() == b"[DONE]"
    return [json.loads(piece) for piece in data]


async def whole(client, body) -> dict:
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()
