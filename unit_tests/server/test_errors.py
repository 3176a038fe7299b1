"""Every error has OpenAI's shape, a status that fits, and the engine's own words."""

import json
import re

import httpx
import openai
import pytest
from fastapi.exceptions import RequestValidationError
from langchain_core import exceptions
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from langchain_eft import errors as langchain_errors
from langchain_eft.engine import errors
from langchain_eft.remote.error_table import TABLE, row_of
from langchain_eft.remote.errors import event_error, status_error
from langchain_eft.server.errors import HTTPError, error_body, error_response, http_error
from unit_tests.server.conftest import serving

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.RequestError("no"), 400, "invalid_request_error", "invalid_value"),
        (errors.RecipeError("no"), 400, "invalid_request_error", "invalid_mixture"),
        (errors.ContextWindowError.of(5, 6, 7), 400, "invalid_request_error", "context_length_exceeded"),
        (errors.CheckpointNotFoundError("no"), 404, "not_found_error", "model_not_found"),
        (errors.RequestTimeoutError.after(1), 408, "invalid_request_error", "timeout"),
        (errors.QueueFullError.of(3, 4), 429, "rate_limit_error", "queue_full"),
        (errors.DecodingError("no"), 500, "server_error", "decoding_failed"),
        (errors.EngineClosedError("no"), 503, "server_error", "engine_closed"),
        (errors.DeviceLostError("no"), 503, "server_error", "device_lost"),
        (errors.EngineError("no"), 500, "server_error", "engine_error"),
    ],
)  # fmt: skip
def test_each_error_of_the_engine_has_a_status(error, status, kind, code):
    with pytest.raises(type(error)) as twin, langchain_errors.langchain_errors():
        raise error
    for each in (error, twin.value):
        body = error_body(each)["error"]
        assert (http_error(each).status, body["type"], body["code"]) == (status, kind, code)
        assert body["message"].startswith(str(error))


MAY_COME_BACK = {errors.DeviceLostError, errors.InsufficientMemoryError}
"""What closes a server."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind.__name__)
def test_an_error_of_the_engine_is_the_same_error_to_a_client(row):
    error = row.kind("no")
    answer = error_response(error)
    expected = errors.EngineClosedError if row.kind in MAY_COME_BACK else row.kind
    in_stream = event_error(error_body(error)["error"])
    arrived = status_error(answer.status_code, answer.body, answer.headers), in_stream
    assert [type(each) for each in arrived] == [expected, expected]
    assert all("no" in str(each) for each in arrived)


def test_the_tree_of_errors_tells_statuses_and_langchains_classes():
    told = re.findall(r"^ +(\w+Error) +(\d+) +(\w+)$", errors.__doc__, re.MULTILINE)
    assert told == [
        (kind.__name__, str(row_of(kind("no")).status), langchains(kind)) for kind in subclasses()
    ]


def subclasses(kind=errors.EngineError):
    """The engine's errors, each after its base."""
    own = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [sub for each in own for sub in (each, *subclasses(each))]


def langchains(kind):
    """The name of LangChain's class of an error."""
    with pytest.raises(kind) as twin, langchain_errors.langchain_errors():
        raise kind("no")
    return next(each for each in type(twin.value).__mro__ if each.__module__ == exceptions.__name__).__name__


def test_an_error_without_a_row_is_a_failure_to_a_client():
    answer = error_response(errors.UnsupportedModelError("no"))
    assert type(status_error(answer.status_code, answer.body, answer.headers)) is errors.DecodingError


@pytest.mark.parametrize("retryable", [True, False])
def test_clients_hear_whether_to_try_again(retryable):
    headers = error_response(errors.DecodingError("no", is_retryable=retryable)).headers
    assert headers.get("x-should-retry") == (None if retryable else "false")
    assert error_response(errors.RequestTimeoutError.after(1)).headers["x-should-retry"] == "false"
    assert int(error_response(errors.QueueFullError.of(1, 1)).headers["retry-after"]) >= 1


def test_what_pydantic_refuses_names_the_field():
    with pytest.raises(ValidationError) as e:
        TypeAdapter(dict[str, list[int]]).validate_python({"a": [1, "x"]})
    body = error_body(e.value)["error"]
    assert (http_error(e.value).status, body["param"]) == (400, "a.1")
    assert "a.1='x'" in body["message"]
    of_query = http_error(RequestValidationError(e.value.errors()))
    assert (of_query.status, of_query.param) == (422, "a.1")


@pytest.mark.slow
def test_of_many_faults_the_first_few_are_named_and_no_value_is_repeated_whole():
    with pytest.raises(ValidationError) as e:
        TypeAdapter(dict[str, list[int]]).validate_python({"k" * 10**6: ["x" * 10**6] * 1000})
    answer = http_error(e.value)
    assert "Input should be a valid integer" in answer.message
    assert len(answer.message) + len(answer.param) < 5000


def test_a_bug_tells_the_caller_nothing():
    body = error_body(ZeroDivisionError("secret"), "req-1")["error"]
    assert (body["code"], body["request_id"]) == ("internal_error", "req-1")
    assert "secret" not in body["message"]


@pytest.mark.parametrize("text", ["\ud800", "\r\nSet-Cookie: a=b", "\x00", "é" * 300])
def test_any_text_can_be_quoted(text):
    response = error_response(HTTPError(400, f"no {text}"))
    assert json.loads(response.body)["error"]["message"] == f"no {text}"
    assert not any("cookie" in name for name in response.headers)


def test_headers_of_a_framework_error_stay():
    answer = http_error(HTTPException(405, "Method Not Allowed", {"Allow": "GET"}))
    assert (answer.status, answer.headers) == (405, {"Allow": "GET"})


# Over HTTP


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/nothing", 404, "/docs lists what there is"),
        ("POST", "/chat/completions", 404, "ends in /v1"),
        ("GET", "/v1/chat/completions", 405, "does not take GET: use POST"),
        ("DELETE", "/health", 405, "does not take DELETE: use GET"),
    ],
)
async def test_what_does_not_exist_says_what_does(client, method, path, status, words):
    answer = await client.request(method, path, json={})
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    assert ("allow" in answer.headers) is (status == 405)


async def refusal(client, **body):
    """The error of OpenAI's own client."""
    sdk = openai.AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key="x", max_retries=0,
        http_client=httpx.AsyncClient(transport=client._transport),
    )  # fmt: skip
    with pytest.raises(openai.APIStatusError) as e:
        await sdk.chat.completions.create(**{"model": "base", "messages": MESSAGES, **body})
    return e.value


async def test_openais_client_raises_its_own_errors(client):
    wrong_type = await refusal(client, temperature="hot")
    assert (type(wrong_type), wrong_type.param) == (openai.UnprocessableEntityError, "temperature")
    out_of_range = await refusal(client, temperature=-1)
    assert isinstance(out_of_range, openai.BadRequestError)
    assert "temperature" in out_of_range.message
    assert out_of_range.request_id
    too_long = await refusal(client, max_tokens=100_000)
    assert too_long.code == "context_length_exceeded"
    unknown = await refusal(client, extra_body={"mixture": {"Pirate": 1}})
    assert isinstance(unknown, openai.BadRequestError)
    assert "'Pirate'" in unknown.message


async def test_langchains_client_raises_its_context_overflow(client):
    llm = ChatOpenAI(
        base_url="http://127.0.0.1/v1", api_key="x", model="base", max_tokens=100_000, max_retries=0,
        http_async_client=httpx.AsyncClient(transport=client._transport),
    )  # fmt: skip
    with pytest.raises(ContextOverflowError, match="context window"):
        await llm.ainvoke("hi")


async def test_a_full_queue_says_when_to_come_back(llm):
    async with serving(llm) as client:
        app = client._transport.app
        app.state.queue_clock.retry_after = lambda: 7

        def full(*args, **kwargs):
            raise errors.QueueFullError.of(4, 2)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(app.state.serving.engine._loop), "add", full)
            for stream in (False, True):
                answer = await client.post(
                    "/v1/chat/completions", json={"model": "base", "messages": MESSAGES, "stream": stream}
                )
                assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
                assert "4 requests wait and 2 run" in answer.json()["error"]["message"]
