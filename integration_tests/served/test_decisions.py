"""A server decides as the process does."""

import httpx
import pytest

decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")

from integration_tests.serve_process import PATIENCE  # noqa: E402
from integration_tests.served.conftest import KEYS  # noqa: E402
from integration_tests.test_exactness import MIXTURES, STATES, questions  # noqa: E402
from langchain_eft import EFTDecisionModel  # noqa: E402


def test_a_server_decides_as_the_process_does(classifier, smol_server):
    remote = EFTDecisionModel(base_url=smol_server.url, api_key=KEYS["staff"])
    asked = dict(enumerate(questions(decisions, classifier.tokenizer, 3, seed=1)))
    given = {"state": STATES[0], "questions": {str(i): question for i, question in asked.items()}}
    for mixture in MIXTURES:
        here, there = classifier.invoke(given, mixture=mixture), remote.invoke(given, mixture=mixture)
        for name, answer in here.choices.items():
            assert there.choices[name].probabilities == pytest.approx(answer.probabilities, abs=1e-4)


def test_the_route_of_transformers_server_is_answered(classifier, smol_server):
    question = decisions.Choice(
        instructions="What is wanted?", criteria={"refund": "money back", "help": None}
    )
    body = {"model": "smol", "state": STATES[2], "questions": {"q": question.model_dump()}}
    headers = {"Authorization": f"Bearer {KEYS['staff']}"}
    answer = httpx.post(
        f"{smol_server.url}/v1/systemone", json=body, headers=headers, timeout=PATIENCE
    ).json()
    here = classifier.invoke({"state": STATES[2], "questions": {"q": question}}).choices["q"]
    assert decisions.ChoiceAnswer.model_validate(answer["answers"]["q"]).choice == here.choice
    assert answer["answers"]["q"]["probabilities"] == pytest.approx(here.probabilities, abs=1e-4)
