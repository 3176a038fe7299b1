"""A malformed request is one HTTP 400 with our sentence, and the server goes on."""

from __future__ import annotations

import json

import httpx
import pytest

REQUEST = {"model": "smol-vllm", "prompt": "Hello", "max_tokens": 2}


def complete(url: str, **fields) -> httpx.Response:
    return httpx.post(f"{url}/v1/completions", json=REQUEST | fields, timeout=60)


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"mixture": "pirate=lots"}, "'pirate=lots' is not a valid part of a mixture"),
        ({"mixture": "parrot=1"}, "Unknown behavior 'parrot'"),
        ({"mixture": "pirate=1,pirate=1"}, "twice"),
        ({"mixture": "pirate=-1"}, "negative weights"),
        ({"mixture": "pirate=nan"}, "finite numbers"),
        ({"mixture": 1}, "mixture=1"),
        ({"mixture": ""}, "'' is not a valid part"),
        ({"mixture": "pirate=1..0/0"}, "tokens"),
        ({"mixtures": "pirate=1"}, "'mixtures'"),
        ({"upscale_strength": "much"}, "upscale_strength='much'"),
        ({"upscale_strength": -1}, "upscale_strength=-1"),
        ({"upscale_top_p": 0}, "upscale_top_p=0"),
        ({"upscale_top_p": 2}, "upscale_top_p=2"),
    ],
)
def test_wrong_arguments_are_one_answer_with_status_400(smol_url, xargs, message):
    answer = complete(smol_url, vllm_xargs=xargs)

    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]


def test_in_a_stream_the_refusal_is_its_only_event(smol_url):
    """vLLM has already sent status 200 when it checks the request of a stream."""
    answer = complete(smol_url, vllm_xargs={"mixture": "parrot=1"}, stream=True)

    first, *rest = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    error = json.loads(first)["error"]
    assert (error["code"], rest) == (400, ["[DONE]"])
    assert "Unknown behavior 'parrot'" in error["message"]


@pytest.mark.parametrize("fields", [{"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}])
def test_log_probabilities_of_prompts_are_refused(smol_url, fields):
    answer = complete(smol_url, **fields)

    assert answer.status_code == 400
    assert "log-probabilities of a prompt are not computed here" in answer.json()["error"]["message"]


def test_the_server_goes_on_after_refusals(smol_url):
    answer = complete(smol_url, vllm_xargs={"mixture": "pirate=1"})

    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 2
