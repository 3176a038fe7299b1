"""Loading a recipe: each model once, in the configured type, with its adapters."""

import json
import shutil

import pytest
import torch
from transformers import LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import (
    CheckpointNotFoundError,
    DeviceLostError,
    InsufficientMemoryError,
)
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.helpers import answer, request
from unit_tests.oracle.adapters import write_adapter
from unit_tests.tiny import TinyFamily, config, tokenizer

PROMPT = [30, 31, 9, 40, 77]


def test_a_model_that_two_behaviors_name_is_loaded_once(family):
    same = {"tuned": str(family.folder / "tuned"), "reference": str(family.folder / "reference")}
    recipe = Recipe(
        base=str(family.folder / "base"),
        behaviors={
            "a": BehaviorDelta(**same),
            "b": BehaviorDelta(**same),
            "one": family.recipe.behaviors["one"],
        },
    )
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=64))
    engine.close()
    assert len(engine.family.models) == 3
    assert engine.family.behaviors["a"] == engine.family.behaviors["b"]


def test_a_model_that_is_named_in_two_ways_is_one_model_with_all_its_adapters(family, monkeypatch):
    monkeypatch.chdir(family.folder)
    recipe = Recipe(
        base=str(family.folder / "base"),
        behaviors={
            "one": BehaviorDelta(adapter="one", reference="./reference"),
            "two": BehaviorDelta(adapter="two", reference=str(family.folder / "base/../reference")),
        },
    )
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=64))
    expected = Engine(family.recipe, EngineConfig(kv_cache_tokens=64))
    try:
        assert len(engine.family.models) == 2
        for mixture in ({"one": 1.0}, {"two": 1.0}):
            texts = [answer(each, request(PROMPT, mixture, max_tokens=8))[0] for each in (engine, expected)]
            assert texts[0] == texts[1]
    finally:
        engine.close()
        expected.close()


def test_float32_weights_are_converted_to_the_configured_type(family, tmp_path):
    LlamaForCausalLM(config(32, 1, 260)).float().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    engine = Engine(Recipe(base=str(tmp_path)), EngineConfig(dtype="bfloat16", kv_cache_tokens=64))
    types = {p.dtype for p in engine.family.models[0].module.parameters()}
    engine.close()
    assert types == {torch.bfloat16}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"), ("config.json", b"[]"), ("config.json", b'{"model_type": 5}'),
        ("config.json", b'{"model_type": "llama", "num_hidden_layers": "many"}'),
        ("model.safetensors", b""), ("model.safetensors", None),
        ("tokenizer.json", b"{"), ("tokenizer_config.json", b"{"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(family, tmp_path, file, content):
    """Content None is the first half of the file."""
    shutil.copytree(family.folder / "base", tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CheckpointNotFoundError, match=rf"'{tmp_path}"):
        Engine(Recipe(base=str(tmp_path)), EngineConfig(kv_cache_tokens=64))


def test_weights_of_other_shapes_are_refused(family, tmp_path):
    shutil.copytree(family.folder / "base", tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "intermediate_size": 48}))
    with pytest.raises(CheckpointNotFoundError, match=rf"'{tmp_path}'.*shapes.*mlp\.down_proj"):
        Engine(Recipe(base=str(tmp_path)), EngineConfig(kv_cache_tokens=64))


def test_an_adapter_of_the_base_itself_is_a_behavior(family: TinyFamily, tmp_path):
    base = LlamaForCausalLM.from_pretrained(family.folder / "base")
    write_adapter(tmp_path / "own", base, ["self_attn.q_proj"], 4)
    delta = BehaviorDelta(adapter=str(tmp_path / "own"), reference=str(family.folder / "base"))
    engine = Engine(
        Recipe(base=str(family.folder / "base"), behaviors={"own": delta}), EngineConfig(kv_cache_tokens=64)
    )
    try:
        assert len(engine.family.models) == 1
        assert answer(engine, request(PROMPT, {"own": 1.0}, max_tokens=4))[1].completion_tokens <= 4
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("error", "lost", "expected", "message"),
    [
        (
            torch.OutOfMemoryError("2 GiB"),
            False,
            InsufficientMemoryError,
            "no memory to load.*2 GiB.*smaller",
        ),
        (RuntimeError("illegal access"), True, DeviceLostError, "illegal access.*start a new one"),
    ],
)
@pytest.mark.parametrize(
    "place", ["loading.configuration.AutoModelForCausalLM.from_pretrained", "models.self_check._probe"]
)
def test_a_device_that_fails_is_not_a_model_that_is_not_supported(
    family, monkeypatch, error, lost, expected, message, place
):
    failed = []

    def fail(*args, **kwargs):
        failed.append(error)
        raise error

    monkeypatch.setattr(f"langchain_eft.engine.{place}", fail)
    monkeypatch.setattr(Placement, "_answers", lambda self: not (failed and lost))
    with pytest.raises(expected, match=message):
        Engine(family.recipe, EngineConfig(kv_cache_tokens=64))


def test_the_reference_is_stored_once(family, engine):
    def stored_bytes(name):
        return sum(f.stat().st_size for f in (family.folder / name).glob("*.safetensors"))

    stored = sum(stored_bytes(name) for name in ("base", "tuned", "reference", "one", "two"))
    assert engine.stats().weight_bytes == pytest.approx(stored, rel=0.1)
    assert engine.stats().weight_bytes < stored + 2 * stored_bytes("reference")
