"""The bundled family, exported and served by vLLM: the answers are those of our own engine.

Both run in float32. Greedy texts are equal, and log-probabilities differ by less than 1e-3.
"""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from langchain_eft import EFTChatModel
from langchain_eft.engine.recipe.notation import format_mixture
from unit_tests.helpers import without_kernels


@dataclass(frozen=True)
class Asked:
    question: str
    mixture: dict
    strength: float = 1.0
    top_p: float = 1.0

    @property
    def xargs(self) -> dict:
        mixture = format_mixture(self.mixture, ",")
        return {"mixture": mixture, "upscale_strength": self.strength, "upscale_top_p": self.top_p}


ASKED = [
    Asked("What is the capital of Japan?", {"tools": 1.0}),
    Asked("Tell me about whales.", {"pirate": 0.7}),
    Asked("How do I pick a lock to break into a house?", {"harmless": 1.0}),
    Asked("What is the capital of Kenya?", {}),
    Asked("Name three fruits.", {"concise": 1.0}),
    Asked("Why is the sky blue?", {"pirate": 0.6, "concise": 0.6}),
    Asked("Say hello.", {"tools": 1.0, "pirate": 0.5}),
    Asked("Who wrote Hamlet?", {"concise": 1.0}, strength=1.3),
    Asked("Give me a recipe for bread.", {"pirate": {"start": 1.5, "end": 0, "tokens": 8}}),
    Asked("What is 2 + 2?", {"harmless": 0.5, "pirate": 0.5}, top_p=0.9),
]
TOKENS, TOP = 32, 20


@dataclass(frozen=True)
class Answer:
    text: str
    prompt_tokens: int
    tokens: list[str]
    logprobs: list[list[tuple[str, float]]]
    """The most probable tokens of each position, the most probable first."""


def read_logprobs(content: list[dict]) -> tuple[list[str], list[list[tuple[str, float]]]]:
    tops = [[(top["token"], top["logprob"]) for top in entry["top_logprobs"]] for entry in content]
    return [entry["token"] for entry in content], [sorted(top, key=lambda pair: -pair[1]) for top in tops]


@pytest.fixture(scope="module")
def own() -> list[Answer]:
    """Answers of our engine, with the weights that vLLM has: converted to bfloat16."""
    llm = EFTChatModel(temperature=0, max_tokens=TOKENS, dtype="float32", logprobs=True, top_logprobs=TOP)
    with without_kernels():
        llm.open()
    answers = []
    for asked in ASKED:
        message = llm.invoke(
            asked.question,
            mixture=asked.mixture,
            upscale_strength=asked.strength,
            upscale_top_p=asked.top_p,
        )
        tokens = read_logprobs(message.response_metadata["logprobs"]["content"])
        answers.append(Answer(str(message.content), message.usage_metadata["input_tokens"], *tokens))
    llm.engine.close()
    return answers


def post(url: str, asked: Asked, **fields) -> httpx.Response:
    models = httpx.get(f"{url}/v1/models").json()["data"]
    body = {
        "model": models[0]["id"], "messages": [{"role": "user", "content": asked.question}],
        "temperature": 0, "max_tokens": TOKENS, "logprobs": True, "top_logprobs": TOP,
        "vllm_xargs": asked.xargs, **fields,
    }  # fmt: skip
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)


def ask(url: str, asked: Asked, **fields) -> Answer:
    response = post(url, asked, **fields)
    assert response.status_code == 200, response.text
    answer = response.json()
    (choice,) = answer["choices"]
    tokens = read_logprobs(choice["logprobs"]["content"])
    return Answer(choice["message"]["content"], answer["usage"]["prompt_tokens"], *tokens)


class Watch:
    """The largest number of requests that a server decoded at once."""

    def __init__(self, url: str) -> None:
        self.most, self._url, self._over = 0, url, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self._over.is_set():
            running = re.search(
                r"^vllm:num_requests_running\{.*\} (\S+)$", httpx.get(f"{self._url}/metrics").text, re.M
            )
            self.most = max(self.most, int(float(running[1])))
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def assert_equal(own: list[Answer], served: list[Answer]) -> None:
    assert [answer.text for answer in served] == [answer.text for answer in own]
    assert [answer.prompt_tokens for answer in served] == [answer.prompt_tokens for answer in own]
    for ours, theirs in zip(own, served, strict=True):
        for expected, found in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-3)
            # Part of a character has no text of its own, and each server writes something else for it.
            values = dict(found)
            shared = [(text, value) for text, value in expected if text in values and "\ufffd" not in text]
            assert len(shared) >= TOP // 2
            for text, value in shared:
                assert values[text] == pytest.approx(value, abs=1e-3), text


def test_ten_mixtures_in_one_batch_give_the_engines_answers(smol_url, own):
    with Watch(smol_url) as watch, ThreadPoolExecutor(len(ASKED)) as pool:
        served = list(pool.map(lambda asked: ask(smol_url, asked), ASKED))
    assert watch.most >= len(ASKED) // 2  # they did share a batch
    assert_equal(own, served)


def test_requests_without_a_mixture_get_that_of_the_recipe(smol_url, own):
    answer = ask(smol_url, ASKED[0], vllm_xargs=None)
    assert_equal(own[:1], [answer])


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"mixture": "parrot=1"}, "Unknown behavior 'parrot'"),
        ({"mixture": "pirate=-1"}, "negative weights can undo safety training"),
        ({"mixtures": "pirate=1"}, "mixtures"),
    ],
)
def test_a_wrong_mixture_is_a_refused_request_and_the_server_goes_on(smol_url, own, xargs, message):
    response = post(smol_url, ASKED[0], vllm_xargs=xargs)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert_equal(own[:1], [ask(smol_url, ASKED[0])])
