import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.loading.behavior_cards import behavior_cards, weights_hash
from langchain_eft.engine.recipe.behavior_card import CARD_FILE
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe

CARD = {
    "name": "one", "base": "b", "reference": "r", "source": "s", "data_hash": "d", "license": "mit",
    "recommended_weight": 0.75, "weight_range": [0.5, 1.25],
}  # fmt: skip


@pytest.fixture
def adapter(family, tmp_path):
    """An adapter's folder with a card of the reference's hash."""
    folder = tmp_path / "one"
    shutil.copytree(family.folder / "one", folder)
    card = {**CARD, "reference_hash": weights_hash(family.folder / "reference")}
    (folder / CARD_FILE).write_text(json.dumps(card))
    return folder


def recipe(family, adapter, reference="reference"):
    delta = BehaviorDelta(adapter=str(adapter), reference=str(family.folder / reference))
    return Recipe(base=str(family.folder / "base"), behaviors={"one": delta})


def test_the_cards_of_a_recipe(family, adapter):
    cards = behavior_cards(recipe(family, adapter))
    assert cards["one"].weight_range == (0.5, 1.25)
    assert behavior_cards(family.recipe) == {}


def test_an_adapter_on_its_own_reference_is_quiet_and_on_another_one_warns(family, adapter, caplog):
    config = EngineConfig(device="cpu", kv_cache_tokens=256, block_size=4)
    Engine(recipe(family, adapter), config).close()
    assert not caplog.records
    Engine(recipe(family, adapter, "tuned"), config).close()
    assert "'one' was trained on the reference 'r'" in caplog.text


def test_a_reference_of_several_adapters_is_read_once(family, adapter, tmp_path, monkeypatch):
    other, hashed = shutil.copytree(adapter, tmp_path / "other"), []
    monkeypatch.setattr(
        "langchain_eft.engine.loading.behavior_cards.checksum", lambda file: hashed.append(file) or "x"
    )
    one, two = recipe(family, adapter), recipe(family, other)
    both = Recipe(base=one.base, behaviors={"one": one.behaviors["one"], "two": two.behaviors["one"]})
    Engine(both, EngineConfig(device="cpu", kv_cache_tokens=256, block_size=4)).close()
    assert hashed == [family.folder / "reference" / "model.safetensors"]


def test_the_hash_is_of_the_weights_and_not_of_file_names(family, tmp_path):
    first, second, changed = (tmp_path / name for name in "abc")
    tensors = load_file(family.folder / "reference" / "model.safetensors")
    for folder in (first, second, changed):
        folder.mkdir()
    save_file(tensors, first / "model.safetensors")
    save_file(tensors, second / "other.safetensors")
    name = next(iter(tensors))
    save_file(
        {**tensors, name: tensors[name] + torch.ones_like(tensors[name])}, changed / "model.safetensors"
    )
    assert weights_hash(first) == weights_hash(second) != weights_hash(changed)
