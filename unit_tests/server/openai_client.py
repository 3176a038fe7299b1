"""What a client of OpenAI's reads: whole answers and streams, checked with the types of its own package."""

import json

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

MESSAGES = [{"role": "user", "content": "hi"}]


async def post(client, path, **body):
    answer = await client.post(path, json={"model": "base", **body})
    assert answer.status_code == 200, answer.text
    return answer


async def refused(client, path, status, **body):
    """The error of a body."""
    answer = await client.post(path, json={"model": "base", **body})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error


def events(answer):
    """The JSON of every event before `[DONE]`."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.rstrip("\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def chat(client, **body):
    answer = (await post(client, "/v1/chat/completions", **{"messages": MESSAGES, **body})).json()
    ChatCompletion.model_validate(answer)
    return answer


async def chat_stream(client, **body):
    body = {"messages": MESSAGES, **body, "stream": True}
    chunks = events(await post(client, "/v1/chat/completions", **body))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    return chunks


async def complete(client, **body):
    answer = (await post(client, "/v1/completions", **body)).json()
    Completion.model_validate(answer)
    return answer


async def complete_stream(client, **body):
    chunks = events(await post(client, "/v1/completions", **body, stream=True))
    for chunk in chunks:
        # OpenAI's own type says that every chunk has a finish reason; their server sends null, as this one.
        ended = [
            {**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]
        ]
        Completion.model_validate({**chunk, "choices": ended})
    return chunks
