"""Log p of given answers over HTTP: that of the engine, within the policy."""

import pytest

from langchain_eft.engine.request import GivenAnswers
from langchain_eft.server.policy import Policy
from unit_tests.helpers import request
from unit_tests.server.conftest import serving

GIVEN = [{"prompt": [5, 6], "answers": [[7, 8], [9]]}, {"prompt": [5, 6, 7], "answers": [[7]]}]
BODY = {"model": "base", "mixture": {"two": 1.0}, "given": GIVEN}


async def test_logprobs_are_those_of_the_engine(client, llm):
    answer = (await client.post("/v1/logprobs", json=BODY)).json()
    given = [
        GivenAnswers(request(each["prompt"], {"two": 1.0}), tuple(map(tuple, each["answers"])))
        for each in GIVEN
    ]
    expected = llm.engine.answer_logprobs(given)
    for own, other in zip(answer["logprobs"], expected.logprobs, strict=True):
        for tokens, of_engine in zip(own, other, strict=True):
            assert tokens == pytest.approx(of_engine, abs=1e-5)
    assert answer["usage"] == {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"given": []}, 422, "given"),
        ({"given": [{"prompt": [], "answers": [[5]]}]}, 422, "prompt"),
        ({"given": [{"prompt": [5], "answers": []}]}, 422, "answers"),
        ({"given": [{"prompt": [5], "answers": [[]]}]}, 422, "answers"),
        ({"given": [{"prompt": [5], "answers": [[10**6]]}]}, 400, "vocabulary"),
        ({"given": [{"prompt": [5], "answers": [[7] * 1200]}]}, 400, "context window"),
        ({"given": [{"prompt": [5], "answers": [[7]] * 600}] * 2}, 400, "1024"),
        ({"given": [{"prompt": [5], "answer": [[7]]}]}, 422, "answer"),
        ({"mixture": {"nine": 1}}, 400, "nine"),
        ({"model": "other"}, 404, "other"),
    ],
)
async def test_what_cannot_be_scored_is_refused(client, change, status, said):
    answer = await client.post("/v1/logprobs", json={**BODY, **change})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


async def test_a_policy_binds_what_is_scored(llm):
    async with serving(llm, policy=Policy(behaviors={"one": (0.5, 1)})) as client:
        assert (await client.post("/v1/logprobs", json={**BODY, "mixture": {"one": 1}})).status_code == 200
        for mixture in ({"two": 1}, {"one": 2}, {}):
            answer = await client.post("/v1/logprobs", json={**BODY, "mixture": mixture})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "policy")


async def test_prompts_rendered_for_other_models_are_refused(client):
    answer = await client.post("/v1/logprobs", json=BODY, headers={"If-Match": '"other"'})
    assert answer.status_code == 412
