"""A configuration neither chooses what is fetched and run, nor keeps a reader busy."""

import json
import shutil
import time

import pytest
import torch

from langchain_eft.diagnostics.plan.footprint import footprint
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import EngineError, UnsupportedModelError
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.engine.models.families import EXPERTS, GROUPED, configuration

KERNEL = "owner/kernel"
"""A repository on the hub. transformers would fetch and import it."""


@pytest.fixture
def base(family, tmp_path):
    """A function that writes a copy of the base with other settings and returns its folder."""

    def write(**settings):
        folder = tmp_path / "base"
        shutil.copytree(family.folder / "base", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **settings}))
        return folder

    return write


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"]
)
def test_a_configuration_does_not_choose_the_attention(base, key):
    folder = base(**{key: KERNEL})
    footprint(find_checkpoint(str(folder)), torch.float32)
    Engine(Recipe(base=str(folder)), EngineConfig(kv_cache_tokens=64)).close()


@pytest.mark.parametrize("key", ["_experts_implementation", "experts_implementation"])
def test_a_configuration_does_not_choose_the_experts(tmp_path, key):
    configuration("mixtral", {**GROUPED, "num_local_experts": 4, **EXPERTS}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: KERNEL}))
    checkpoint = Checkpoint(str(tmp_path), tmp_path)
    assert KERNEL not in map(str, vars(read_config(checkpoint)).values())
    assert footprint(checkpoint, torch.float32).layers == 2


@pytest.mark.parametrize("layers", [1_000_000, 900])
def test_more_layers_than_there_are_weights_are_refused_before_they_are_built(base, layers):
    folder = base(num_hidden_layers=layers)
    started = time.process_time()
    with pytest.raises(EngineError, match=rf"{folder}.*num_hidden_layers={layers}"):
        Engine(Recipe(base=str(folder)), EngineConfig(kv_cache_tokens=64))
    assert time.process_time() - started < 5  # a million layers took 433 s


def test_a_plan_of_a_million_layers_is_refused_before_they_are_built(base):
    checkpoint = find_checkpoint(str(base(num_hidden_layers=1_000_000)))
    with pytest.raises(UnsupportedModelError, match=r"num_hidden_layers=1000000.*at most 1000"):
        footprint(checkpoint, torch.float32)
