"""Rewards over HTTP: those of the engine, within the policy."""

import pytest

from langchain_eft.server.policy import Policy
from unit_tests.server.conftest import serving

BODY = {"model": "base", "behavior": "one", "prompt": [5, 6], "answers": [[7, 8], [9]]}


async def test_rewards_are_those_of_the_engine(client, llm):
    answer = await client.post("/v1/rewards", json=BODY)
    expected = llm.engine.score("one", (5, 6), [(7, 8), (9,)])
    assert answer.json() == {"object": "list", "model": "base", "rewards": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"behavior": "nine"}, 400, "nine"),
        ({"answers": []}, 422, "answers"),
        ({"answers": [[]]}, 422, "answers"),
        ({"prompt": []}, 422, "prompt"),
        ({"answers": [[10**6]]}, 400, "vocabulary"),
        ({"answers": [[7]] * 1025}, 400, "1024"),
        ({"answers": [[7] * 1200]}, 400, "context window"),
        ({"model": "other"}, 404, "other"),
        ({"weight": 1}, 422, "weight"),
    ],
)
async def test_what_cannot_be_scored_is_refused(client, change, status, said):
    answer = await client.post("/v1/rewards", json={**BODY, **change})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


async def test_a_behavior_that_may_not_be_used_scores_nothing(llm):
    policy = Policy(behaviors={"one": (0.5, 1), "two": (0, 0)})
    async with serving(llm, policy=policy) as client:
        assert (await client.post("/v1/rewards", json=BODY)).status_code == 200
        for behavior in ("two", "full", "nine"):
            answer = await client.post("/v1/rewards", json={**BODY, "behavior": behavior})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "policy")
