"""The checkpoints of a recipe: their sizes, and whether they fit the devices together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.loading import layout
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.hub import HubModel, Listing
from langchain_eft.engine.loading.layout import RecipeCheckpoints, weight_count
from langchain_eft.engine.loading.memory import count_weights, tensor_headers
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe

CPU = torch.device("cpu")


def on_hub(name: str, parameters: int | None, nbytes: int) -> Checkpoint:
    return Checkpoint(
        name, hub=HubModel.parse(name), listing=Listing("c0ffee", {"m.safetensors": nbytes}, parameters)
    )


def test_weights_that_do_not_fit_are_refused_before_they_are_read(family, monkeypatch):
    monkeypatch.setattr(layout, "free_memory", lambda device: 10_000)
    with pytest.raises(InsufficientMemoryError, match=r"need 0.00 GiB.*base: 0.00 GiB.*free on cpu.*smaller"):
        Engine(family.recipe)


def test_models_that_do_not_fit_together_are_refused_before_any_is_fetched(monkeypatch):
    sizes = {"o/large": 32_000_000_000, "o/small": 1_500_000_000, "o/chat": 1_500_000_000}
    monkeypatch.setattr(layout, "find_checkpoint", lambda name: on_hub(name, sizes[name], 2 * sizes[name]))
    monkeypatch.setattr(layout, "free_memory", lambda device: 24 * 2**30)
    monkeypatch.setattr(Checkpoint, "fetch", lambda *_: pytest.fail("something was fetched"))
    recipe = Recipe(base="o/large", behaviors={"c": BehaviorDelta(tuned="o/chat", reference="o/small")})
    needed = r"need 65\.19 GiB of memory \(o/large: 59\.60 GiB, o/small: 2\.79 GiB, o/chat: 2\.79 GiB\)"
    with pytest.raises(
        InsufficientMemoryError, match=needed + r", but only 24\.00 GiB are free on cpu: quantize"
    ):
        Engine(recipe, EngineConfig(device="cpu", dtype="bfloat16"))
    checkpoints = RecipeCheckpoints.find(recipe, lambda _: None)
    packed = Placement(CPU, CPU, torch.bfloat16, quantization="nf4")
    monkeypatch.setattr(layout, "free_memory", lambda device: 20 * 2**30)
    with pytest.raises(InsufficientMemoryError, match=r"o/large: 16\.76 GiB"):
        checkpoints.require_memory(packed)
    monkeypatch.setattr(layout, "free_memory", lambda device: 24 * 2**30)
    checkpoints.require_memory(packed)


@pytest.mark.parametrize(
    ("parameters", "stored", "has_kernels", "expected"),
    [
        (1000, 2000, True, 2000), (1000, 2000, False, 4000),
        (1000, 4000, True, 4000), (1000, 600, True, 600), (None, 700, True, 700),
    ],
)  # fmt: skip
def test_memory_of_a_hub_model_follows_its_number_of_weights_unless_they_are_quantized(
    parameters, stored, has_kernels, expected, monkeypatch
):
    monkeypatch.setattr("langchain_eft.engine.models.placement.can_compile", lambda: has_kernels)
    count = weight_count(on_hub("o/m", parameters, stored))
    assert count.nbytes(Placement(CPU, CPU, torch.float32)) == expected


def test_a_base_that_is_also_a_small_model_cannot_be_quantized(family):
    small = str(family.folder / "base")
    delta = BehaviorDelta(tuned=str(family.folder / "tuned"), reference=small)
    with pytest.raises(RecipeError, match="also a small model of behavior 'x'"):
        Engine(Recipe(base=small, behaviors={"x": delta}), EngineConfig(device="cpu", quantization="nf4"))


def test_eight_bits_need_less_memory(family, monkeypatch):
    folder, plain = family.folder / "base", Placement(CPU, CPU, torch.float32)
    eight_bits = Placement(CPU, CPU, torch.float32, quantization="int8")
    half = Placement(CPU, CPU, torch.float32, ranks=2)
    count = count_weights(folder)
    whole, small = count.nbytes(plain), count.nbytes(eight_bits)
    assert small < 0.5 * whole
    assert count.nbytes(replace(plain, quantization="nf4")) < small
    monkeypatch.setattr("langchain_eft.engine.loading.layout.free_memory", lambda device: whole - 1)
    checkpoints = RecipeCheckpoints.find(Recipe(base=str(folder)), Path)
    checkpoints.require_memory(eight_bits)
    checkpoints.require_memory(half)
    with pytest.raises(InsufficientMemoryError, match=r"base: 0\.00 GiB\).*free on cpu: quantize"):
        checkpoints.require_memory(plain)


def test_headers_know_the_size_of_every_type(tmp_path):
    types = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool)
    tensors = {str(dtype): torch.zeros(3, 5, dtype=dtype) for dtype in types}
    save_file(tensors, tmp_path / "model.safetensors")
    headers = tensor_headers(tmp_path)
    assert {name: header.nbytes for name, header in headers.items()} == {
        name: tensor.nbytes for name, tensor in tensors.items()
    }
