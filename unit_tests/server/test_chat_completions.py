"""`/v1/chat/completions` says what `EFTChatModel` says in process, in OpenAI's words."""

import json

from openai.types.chat import ChatCompletion, ChatCompletionChunk

MESSAGES = [{"role": "user", "content": "hi"}]


async def ask(client, **body):
    answer = await client.post("/v1/chat/completions", json={"model": "base", "messages": MESSAGES, **body})
    assert answer.status_code == 200, answer.text
    return ChatCompletion.model_validate(answer.json())


async def ask_stream(client, **body):
    answer = await client.post(
        "/v1/chat/completions", json={"model": "base", "messages": MESSAGES, **body, "stream": True}
    )
    assert answer.status_code == 200, answer.text
    *events, done = [
        line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data")
    ]
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(event)) for event in events]


async def test_answers_equal_those_in_process(client, llm):
    expected = (await llm.ainvoke("hi")).content
    assert (await ask(client)).choices[0].message.content == expected
    chunks = await ask_stream(client)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
