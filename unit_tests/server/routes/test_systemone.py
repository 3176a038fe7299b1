"""`/v1/systemone`: the questions and answers of transformers' server, decided by p, within the policy."""

import pytest

from langchain_eft.server.policy import Policy
from unit_tests.server.conftest import serving

QUESTIONS = {
    "late": {"type": "noul", "instructions": "Is it late?"},
    "team": {"type": "choice", "instructions": "Who?", "criteria": {"billing": "money", "bugs": None}},
    "rush": {"type": "score", "instructions": "How urgent?", "criteria": ["not", "very"]},
}
BODY = {"model": "base", "state": "The bus left.", "questions": QUESTIONS}


async def test_answers_have_the_form_of_transformers_server(client):
    answer = (await client.post("/v1/systemone", json=BODY)).json()
    assert set(answer) == {"model", "answers", "usage"}
    late, team, rush = answer["answers"].values()
    assert set(late) == {"type", "noul"}
    assert set(team) == {"type", "choice", "confidence", "probabilities"}
    assert set(team["probabilities"]) == {"billing", "bugs"}
    assert set(rush) == {"type", "score", "legend", "confidence", "probabilities"}
    assert rush["legend"] == {"0": "not", "1": "very"}
    assert sum(rush["probabilities"].values()) == pytest.approx(1)
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["output_tokens"] == 0


async def test_decisions_are_those_of_the_model_in_process(client, llm, settings):
    decisions = pytest.importorskip(
        "langchain_core.decisions", reason="langchain-core 1.8 has decision models"
    )
    from langchain_eft import EFTDecisionModel

    fields = {name: getattr(llm, name) for name in ("model", "behaviors", "engine_options", "chat_template")}
    classifier = EFTDecisionModel(**fields, mixture={"one": 1.0})
    assert classifier.engine is llm.engine
    for mixture in ({"one": 1.0}, {"two": 0.5}, {}):
        there = (await client.post("/v1/systemone", json={**BODY, "mixture": mixture})).json()
        here = await classifier.ainvoke({"state": BODY["state"], "questions": QUESTIONS}, mixture=mixture)
        assert there["answers"]["late"]["noul"] == pytest.approx(here.nouls["late"].noul, abs=1e-5)
        assert there["answers"]["team"]["probabilities"] == pytest.approx(
            here.choices["team"].probabilities, abs=1e-5
        )
        assert isinstance(here, decisions.ClassifierResponse)


async def test_a_state_may_be_json(client):
    for state in ({"text": "The bus left."}, ["The bus left.", 3]):
        answer = await client.post("/v1/systemone", json={**BODY, "state": state})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"questions": {}}, 422, "questions"),
        ({"questions": {"where": {"type": "box", "instructions": "the cat"}}}, 400, "text only"),
        ({"questions": {"late": {"type": "poll"}}}, 400, "'poll'"),
        ({"questions": {"team": {"type": "choice", "criteria": {"a": None, " ": None}}}}, 400, "blank"),
        ({"state": 3}, 422, "state"),
        ({"state": "x" * 5000}, 400, "context window"),
        ({"assets": {"img": {"type": "image"}}}, 400, "assets"),
        ({"model": "other"}, 404, "other"),
        ({"model": "base:one=1", "mixture": {"one": 1}}, 400, "mixture"),
        ({"mixture": {"nine": 1}}, 400, "nine"),
        ({"temperature": 1}, 422, "temperature"),
    ],
)
async def test_what_cannot_be_decided_is_refused(client, change, status, said):
    answer = await client.post("/v1/systemone", json={**BODY, **change})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


async def test_a_policy_binds_decisions(llm):
    async with serving(llm, policy=Policy(behaviors={"one": (0.5, 1)}, upscale_strength=(1, 2))) as client:
        assert (await client.post("/v1/systemone", json=BODY)).status_code == 200
        for change in (
            {"mixture": {"one": 2}},
            {"mixture": {}},
            {"model": "base:two=1"},
            {"upscale_strength": 0},
        ):
            answer = await client.post("/v1/systemone", json={**BODY, **change})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "policy")
