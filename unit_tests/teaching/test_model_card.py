import pytest
from huggingface_hub import ModelCard

from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.teaching.model_card import hub_license, model_card

MEASURED = {"loss_before": 2.0, "loss_after": 1.0, "held_out": 7}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("mit", {"license": "mit"}),
        ("Qwen Research", {"license": "other", "license_name": "qwen-research"}),
    ],
)
def test_licenses_are_written_as_the_hub_knows_them(name, expected):
    assert hub_license(name) == expected


def test_the_hub_can_read_the_card():
    card = BehaviorCard(
        name="house", base="smol", reference="preset:smol", reference_hash="xxh3:1", source="talk.jsonl",
        data_hash="1", license="Apache-2.0", settings={"rank": 8}, measured=MEASURED,
    )  # fmt: skip
    read = ModelCard(model_card(card, "owner/base", None))
    assert (read.data.license, read.data.library_name) == ("apache-2.0", "peft")
    assert read.data.base_model == "owner/base"
    assert "2.000 before, 1.000 after (7 examples" in read.text
