"""Teaching on the real reference. Full-size runs are in docs/teaching.md."""

import json

import pytest

from langchain_eft import EFTChatModel, EFTRewardScorer
from langchain_eft.teaching import Settings, teach

ENDING = "Kind regards, Team Northwind"
TOPICS = (
    "whales",
    "bread",
    "chess",
    "rain",
    "bees",
    "paper",
    "tea",
    "owls",
    "trains",
    "salt",
    "kites",
    "jazz",
)


@pytest.mark.full
def test_a_few_conversations_teach_the_real_reference_a_house_style(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about {topic}."},
                {"role": "assistant", "content": f"Here is a word on {topic}. {ENDING}"},
            ]
        }
        for topic in TOPICS
    ]
    (tmp_path / "house.jsonl").write_text("\n".join(map(json.dumps, rows)))
    behavior = teach(
        "house",
        tmp_path / "house.jsonl",
        folder=tmp_path / "house",
        settings=Settings(steps=16, batch_size=4),
        verdict=False,
    )
    measured = behavior.card.measured
    assert measured["loss_after"] < measured["loss_before"] / 2
    assert behavior.card.reference == "preset:smol"
    assert behavior.card.license == "Apache-2.0"

    llm = EFTChatModel(behaviors={"house": behavior.delta}, mixture={"house": 1.0}, temperature=0)
    scorer = EFTRewardScorer(llm, "house", per_token=True)
    plain, taught = scorer.invoke(
        {"prompt": "Tell me about rivers.", "answers": ["Rivers flow to the sea.", f"Here it is. {ENDING}"]}
    )
    assert taught > plain + 0.5
    llm.engine.close()
