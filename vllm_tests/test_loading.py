"""Damaged exports and models that vLLM computes in another way are refused while they are loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vllm_tests.engines import V2, engine

pytestmark = pytest.mark.skipif(V2, reason="one runner is enough for what the model does by itself")


@pytest.fixture
def copy(family, tmp_path):
    return shutil.copytree(family, tmp_path / "family")


def change(file: Path, edit) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def load(folder, **settings) -> None:
    with engine(folder, **settings):
        pass


def drop_layer(tensors):
    del tensors["model.layers.1.mlp.down_proj.weight"]


@pytest.mark.parametrize(
    ("place", "edit", "message"),
    [
        ("eft/three", drop_layer, "'three' holds the weights.*layers.1.mlp.down_proj"),
        (".", drop_layer, "'base' holds the weights.*layers.1.mlp.down_proj"),
    ],
)
def test_a_missing_weight_is_an_error(copy, place, edit, message):
    change(copy / place / "model.safetensors", edit)

    with pytest.raises(Exception, match=message):
        load(copy)


def rename(tensors):
    for name in list(tensors):
        tensors[name.replace("layers.1.self_attn.q_proj", "layers.9.self_attn.q_proj")] = tensors.pop(name)


def widen(tensors):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[name] = torch.zeros(tensors[name].shape[0], tensors[name].shape[1] + 8)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename, "'model.layers.9.self_attn.q_proj', which is no linear layer of 'reference'"),
        (widen, r"as if it had shape \(64, 72\), but in 'reference' it has \(64, 64\)"),
    ],
)
def test_an_adapter_that_does_not_fit_is_an_error(copy, edit, message):
    change(copy / "eft/two/adapter_model.safetensors", edit)

    with pytest.raises(Exception, match=message):
        load(copy)


def test_a_loader_that_reads_no_small_models_is_refused(family):
    with pytest.raises(Exception, match="load_format='dummy' does not read the small models"):
        load(family, load_format="dummy")


def test_a_model_that_vllm_computes_in_another_way_is_refused_at_the_first_start(copy, monkeypatch):
    from langchain_eft.vllm import variants

    usual = variants._LowRankMethod.apply
    monkeypatch.setattr(
        variants._LowRankMethod, "apply", lambda self, layer, x, bias=None: self._method.apply(layer, x, bias)
    )
    with pytest.raises(Exception, match="model 'own' in vLLM differ from those of a plain forward pass"):
        load(copy)

    monkeypatch.setattr(variants._LowRankMethod, "apply", usual)
    load(copy)
    records = Path(os.environ["LANGCHAIN_EFT_CACHE"]) / "vllm-checked"
    before = len(list(records.iterdir()))
    monkeypatch.setattr("langchain_eft.vllm.self_check._plain_attention", None)  # a second start has no check
    load(copy)
    assert len(list(records.iterdir())) == before > 0


def test_another_section_is_checked_again(copy, monkeypatch):
    config = json.loads((copy / "config.json").read_text())
    config["eft"]["end_ids"] = [2]
    (copy / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("langchain_eft.vllm.self_check._plain_attention", None)

    with pytest.raises(TypeError):
        load(copy)
