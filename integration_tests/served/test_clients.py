"""The `openai` package, which checks every field that it knows, reads every answer, chunk and error."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from integration_tests.serve_process import PATIENCE
from integration_tests.served.conftest import KEYS

pytestmark = pytest.mark.slow

JAPAN = [{"role": "user", "content": "What is the capital of Japan?"}]
ASKED = {"model": "smol", "messages": JAPAN, "temperature": 0, "max_tokens": 16}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather at a location.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "maxLength": 20}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CALL = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 60}


class City(BaseModel):
    name: str
    large: bool


def strict(running, key="staff", kind=OpenAI):
    """A client that refuses answers which are not what OpenAI's types say, and does not try again."""
    return kind(
        base_url=f"{running.url}/v1",
        api_key=KEYS.get(key, key),
        max_retries=0,
        timeout=PATIENCE,
        _strict_response_validation=True,
    )


@pytest.fixture(scope="module")
def client(smol_server):
    with strict(smol_server) as client:
        yield client


def joined(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_whole_answer_and_a_stream(client):
    whole = client.chat.completions.create(**ASKED)
    chunks = list(
        client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    )
    assert "Tokyo" in whole.choices[0].message.content
    assert joined(chunks) == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == whole.choices[0].message.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert whole.model == "smol"


def test_without_being_asked_a_stream_counts_nothing(client):
    chunks = list(client.chat.completions.create(**ASKED, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_the_same_with_the_asynchronous_client(smol_server):
    async with strict(smol_server, kind=AsyncOpenAI) as client:
        whole, stream, text = await asyncio.gather(
            client.chat.completions.create(**ASKED),
            client.chat.completions.create(**ASKED, stream=True),
            client.completions.create(model="smol:none", prompt="1, 2, 3,", max_tokens=6, temperature=0),
        )
        chunks = [chunk async for chunk in stream]
    assert joined(chunks) == whole.choices[0].message.content
    assert text.choices[0].text
    assert text.usage.completion_tokens == 6


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_log_probabilities(client, stream):
    answer = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3, stream=stream)
    choices = [chunk.choices[0] for chunk in answer if chunk.choices] if stream else answer.choices
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    assert len(entries) > 3
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert bytes(entry.bytes).decode(errors="replace") == entry.token
        assert entry.model_extra["token_id"] >= 0


def test_calls_of_tools_whole_and_in_pieces(client):
    whole = client.chat.completions.create(**{**ASKED, **CALL})
    (call,) = whole.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert whole.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(**{**ASKED, **CALL}) as stream:
        kinds = [event.type for event in stream]
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert "tool_calls.function.arguments.delta" in kinds
    assert (streamed.function.name, streamed.function.arguments) == (
        call.function.name,
        call.function.arguments,
    )
    assert streamed.id
    turns = [
        *JAPAN,
        whole.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "It is sunny."},
    ]
    assert client.chat.completions.create(**{**ASKED, "messages": turns}, tools=[WEATHER]).choices


def test_an_object_of_a_class(client):
    asked = {**ASKED, "max_tokens": 60}
    parsed = client.chat.completions.parse(**asked, response_format=City).choices[0].message.parsed
    assert isinstance(parsed, City)
    with client.chat.completions.stream(**asked, response_format=City) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_several_answers(client, stream):
    asked = {**ASKED, "n": 3, "temperature": 1.0, "seed": 5, "max_tokens": 8, "stream": stream}
    answer = client.chat.completions.create(**asked)
    texts = {}
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            message = choice.delta if stream else choice.message
            texts[choice.index] = texts.get(choice.index, "") + (message.content or "")
    assert set(texts) == {0, 1, 2}
    assert all(texts.values())


def test_fields_of_this_package_go_and_come_beside_openais(client):
    more = {"mixture": {"pirate": 1.0}, "trace": True, "return_token_ids": True}
    answer = client.chat.completions.create(**ASKED, extra_body=more)
    (choice,) = answer.choices
    assert choice.model_extra["eft"]["mixture"] == {"pirate": 1.0}
    assert len(choice.model_extra["trace"]) == len(choice.model_extra["token_ids"])
    prompt = answer.model_extra["prompt_token_ids"]
    ids = [*prompt, *choice.model_extra["token_ids"][:5]]
    text = client.completions.create(
        model="smol", prompt=ids, temperature=0, max_tokens=3, extra_body={"mixture": {"pirate": 1.0}}
    )
    assert choice.message.content.find(text.choices[0].text) > 0


def test_completions_of_texts_and_of_token_ids(client):
    asked = {"model": "smol:none", "temperature": 0, "max_tokens": 6}
    texts = client.completions.create(**asked, prompt=["1, 2, 3,", "The sun is"], logprobs=2)
    assert [choice.index for choice in texts.choices] == [0, 1]
    for choice in texts.choices:
        assert "".join(choice.logprobs.tokens) == choice.text
        assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs) == 6
    # OpenAI's own chunks have a null that its type does not know.
    with OpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0, timeout=PATIENCE) as lenient:
        chunks = list(lenient.completions.create(**asked, prompt="1, 2, 3,", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == texts.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_models_are_mixtures(client):
    listed = [model.id for model in client.models.list()]
    assert {"smol", "smol:pirate=1", "smol:none", "captain"} <= set(listed)
    for name in listed:
        assert client.models.retrieve(name).id == name
    assert client.models.retrieve("smol:pirate=0.7,concise=0.3").model_extra["eft"]["mixture"] == {
        "pirate": 0.7,
        "concise": 0.3,
    }


# Errors


@pytest.mark.parametrize(
    ("change", "error", "message", "param"),
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature=-1", None),
        ({"max_tokens": 99_999}, openai.BadRequestError, "context_length_exceeded", "messages"),
        ({"extra_body": {"mixture": {"pirrate": 1}}}, openai.BadRequestError, "pirrate.*pirate", "mixture"),
        ({"tools": [{}]}, openai.BadRequestError, "tool", None),
        ({"model": "gpt-5"}, openai.NotFoundError, "gpt-5.*'smol'", "model"),
        ({"model": "smol:nobody=1"}, openai.NotFoundError, "nobody.*'pirate'", "model"),
        ({"extra_body": {"mixtur": {}}}, openai.UnprocessableEntityError, "mean 'mixture'", None),
        ({"messages": "hi"}, openai.UnprocessableEntityError, "messages", "messages"),
        ({"seed": "many"}, openai.UnprocessableEntityError, "many", "seed"),
    ],
)
def test_what_cannot_be_served_is_the_error_that_clients_expect(client, change, error, message, param):
    for stream in (False, True):
        with pytest.raises(error, match=message) as caught:
            client.chat.completions.create(**{**ASKED, **change, "stream": stream})
        assert caught.value.body["message"]
        assert caught.value.request_id
        if param:
            assert caught.value.param == param


def test_no_key_and_a_forbidden_mixture(smol_server):
    with strict(smol_server, "a-wrong-secret") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(**ASKED)
    with strict(smol_server, "guest") as guest, pytest.raises(openai.PermissionDeniedError, match="pirate"):
        guest.chat.completions.create(**{**ASKED, "model": "smol:pirate=1,harmless=1"})
