import json
import pickle

import pytest
from langchain_core import exceptions

from langchain_eft.errors import langchain_errors
from langchain_eft.remote.errors import event_error, status_error


def raised(error):
    """The error as callers of LangChain's models see it."""
    with pytest.raises(exceptions.ModelError) as caught, langchain_errors():
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, exceptions.ModelInvalidRequestError),
        (401, exceptions.ModelAuthenticationError),
        (403, exceptions.ModelPermissionDeniedError),
        (404, exceptions.ModelNotFoundError),
        (408, exceptions.ModelTimeoutError),
        (413, exceptions.ModelInvalidRequestError),
        (415, exceptions.ModelInvalidRequestError),
        (422, exceptions.ModelInvalidRequestError),
        (429, exceptions.ModelRateLimitError),
        (500, exceptions.ModelAPIError),
        (502, exceptions.ModelAPIError),
        (503, exceptions.ModelAPIError),
        (504, exceptions.ModelTimeoutError),
    ],
)
def test_a_status_is_a_typed_error_with_the_servers_message(status, kind):
    body = json.dumps({"error": {"message": "the weight 3 is too large", "code": None}}).encode()
    error = raised(status_error(status, body, {}))
    assert isinstance(error, kind)
    assert "the weight 3 is too large" in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>Bad gateway</html>", "Bad gateway"),
        (b"", "no reason"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": "flat"}', "flat"),
        (b"[1, 2]", "[1, 2]"),
        (b"\xff\xfe", "status 502"),
    ],
)
def test_bodies_of_other_servers_are_shown(body, said):
    assert said in str(status_error(502, body, {}))


def test_a_failure_says_whether_it_would_fail_again():
    assert status_error(500, b"", {}).is_retryable
    assert not status_error(500, b"", {"x-should-retry": "false"}).is_retryable


def test_a_mixture_that_the_server_refuses_is_a_recipe_error():
    body = json.dumps({"error": {"message": "Unknown behavior", "code": "invalid_mixture"}}).encode()
    error = raised(status_error(400, body, {}))
    assert type(error).__name__ == "EFTRecipeError"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("The prompt has 9 tokens (context_length_exceeded)", "context_length_exceeded"),
        ("This model's maximum context length is 8 tokens. However, you requested 9 tokens.", 400),
        ("The decoder prompt (length 9) is longer than the maximum model length of 8.", 400),
        ("You passed 9 input tokens. However, the model's context length is only 8 tokens.", 400),
    ],
)
def test_too_long_a_prompt_is_a_context_overflow(message, code):
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    error = raised(status_error(400, body, {}))
    assert isinstance(error, exceptions.ContextOverflowError)
    assert message in str(error)
    assert type(pickle.loads(pickle.dumps(error))) is type(error)  # noqa: S301


def test_a_message_without_end_is_cut():
    body = json.dumps({"error": {"message": "no" * 10**5}}).encode()
    assert len(str(status_error(400, body, {}))) < 5000
    assert len(str(event_error({"message": "no" * 10**5}))) < 5000


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("decoding_failed", exceptions.ModelAPIError),
        ("timeout", exceptions.ModelTimeoutError),
        ("engine_closed", exceptions.ModelAPIError),
        ("invalid_value", exceptions.ModelInvalidRequestError),
        ("context_length_exceeded", exceptions.ContextOverflowError),
        (400, exceptions.ModelInvalidRequestError),
        (None, exceptions.ModelAPIError),
    ],
)
def test_the_last_event_of_a_stream_is_a_typed_error(code, kind):
    error = raised(event_error({"message": "it broke", "code": code}))
    assert isinstance(error, kind)
    assert "it broke" in str(error)
