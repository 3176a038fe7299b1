"""Events as they are validated, without HTTP."""

import json

import pytest
from pydantic import ValidationError

from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.remote.eft_server import EFTServer
from langchain_eft.remote.vllm_server import VLLMServer

MANY = {str(number): {} for number in range(2000)}


def read(server, **choice):
    return server.read(None, json.dumps({"choices": [choice]}).encode())


def test_null_is_the_logarithm_of_zero():
    said = {"token_logprobs": [-1], "top_token_ids": [[[3, None], [4, -2]]]}
    (logprobs,) = read(EFTServer, token_ids=[4], logprobs=said).logprobs
    assert logprobs == TokenLogprobs(-1.0, ((3, float("-inf")), (4, -2.0)))


@pytest.mark.parametrize(
    ("server", "choice"),
    [
        (EFTServer, {"trace": [{"behaviors": MANY}]}),
        (EFTServer, {"trace": [MANY]}),
        (EFTServer, {"eft": {"drafted": 0, "accepted": 0, "verify_passes": 0, "context_tokens": MANY}}),
        (EFTServer, {"token_ids": [""] * 2000}),
        (VLLMServer, {"logprobs": {"token_logprobs": [-1.0], "top_logprobs": [MANY]}}),
    ],
)
def test_thousands_of_wrong_values_are_one_error(server, choice):
    """An error of each would take a thousand times the memory of the event."""
    with pytest.raises(ValidationError) as caught:
        read(server, **choice)
    assert caught.value.error_count() < 10
