"""Weights are read from safetensors of the model's own folder alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.teaching.reference_model import load_reference


def decode(folder):
    Engine(Recipe(base=str(folder)), EngineConfig(kv_cache_tokens=64)).close()


def train(folder):
    load_reference(Path(folder), Path(folder))


@pytest.fixture(params=[decode, train])
def load(request):
    return request.param


@pytest.fixture
def base(family, tmp_path):
    """A copy of the base, and its weights as a pickle beside it."""
    folder = tmp_path / "base"
    shutil.copytree(family.folder / "base", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def write_index(folder, name):
    keys = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_pickled_weights_are_refused_with_what_converts_them(base, load):
    (base / "model.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=rf"{base}.*\.bin.*save_pretrained\(folder\)"):
        load(base)


def test_a_configuration_does_not_name_pickled_weights(base, load):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "transformers_weights": "pytorch_model.bin"}))
    (base / "pytorch_model.bin").write_bytes(b"a pickle that nobody opens")
    load(base)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../weights.safetensors", "/weights.safetensors"])
def test_an_index_names_safetensors_of_its_folder_alone(base, load, name):
    write_index(base, name)
    (base / "model.safetensors").rename(base.parent / "weights.safetensors")
    with pytest.raises(CheckpointNotFoundError, match=r"index\.json.*is no safetensors file of this folder"):
        load(base)


def test_weights_in_parts_are_read(base, load):
    write_index(base, "model-00001-of-00001.safetensors")
    (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
    load(base)


def test_an_adapter_beside_the_weights_is_refused(family, base, load):
    """It would be added where PEFT is installed, and ignored elsewhere."""
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(family.folder / "one" / file, base)
    with pytest.raises(RecipeError, match=rf"{base}.*adapter.*folder of its own"):
        load(base)
