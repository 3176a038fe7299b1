import json

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behavior_card import CARD_FILE, BehaviorCard, read_card

CARD = BehaviorCard(
    name="terse", base="smol", reference="preset:smol", reference_hash="xxh3:1", source="x.jsonl",
    data_hash="1", license="mit",
)  # fmt: skip


def test_a_card_is_read_as_it_was_written(tmp_path):
    (tmp_path / CARD_FILE).write_text(CARD.model_dump_json())
    assert read_card(tmp_path) == CARD


def test_fields_of_later_versions_are_ignored(tmp_path):
    (tmp_path / CARD_FILE).write_text(json.dumps({**CARD.model_dump(), "later": 1}))
    assert read_card(tmp_path) == CARD


def test_a_folder_without_a_card_has_none(tmp_path):
    assert read_card(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "{}", '{"name": 3}'])
def test_a_damaged_card_is_refused(tmp_path, text):
    (tmp_path / CARD_FILE).write_text(text)
    with pytest.raises(RecipeError, match=r"behavior\.json.*does not describe a behavior"):
        read_card(tmp_path)
