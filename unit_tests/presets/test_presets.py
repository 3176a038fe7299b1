"""Presets are data: well-formed, complete, and true where the truth is known."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from langchain_eft import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.diagnostics.plan import plan_recipe, recipe_footprints
from langchain_eft.diagnostics.plan.footprint import Footprint, footprint
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.presets import load_preset, preset_names

CONFIGURATIONS = {
    r"/SmolLM2-135M": "smollm2-135m",
    r"/SmolLM2-1\.7B": "smollm2-1.7b",
    r"/Qwen3-0\.6B": "qwen3-0.6b",
    r"/Qwen3-4B": "qwen3-4b",
    r"/Qwen3-14B": "qwen3-14b",
    r"/Qwen3-30B-A3B": "qwen3-30b",
    r"/Qwen3\.5-0\.8B": "qwen3.5-0.8b",
    r"/Qwen3\.5-9B": "qwen3.5-9b",
    r"/OLMo-2-0425-1B": "olmo-2-1b",
    r"/OLMo-2-1124-13B": "olmo-2-13b",
    r"/Olmo-3-(1025-)?7B": "olmo-3-7b",
    r"/Olmo-3-1125-32B": "olmo-3-32b",
    r"/Llama-3\.2-1B": "llama-3.2-1b",
    r"/Llama-3\.1-8B": "llama-3.1-8b",
    r"/Llama-3\.1-70B": "llama-3.1-70b",
    r"/granite-4\.1-3b": "granite-4.1-3b",
    r"/granite-4\.1-30b": "granite-4.1-30b",
    r"/gemma-4-E2B": "gemma-4-e2b",
    r"/gemma-4-31B": "gemma-4-31b",
    r"/Ministral-3-3B": "ministral-3-3b",
    r"/Ministral-3-14B": "ministral-3-14b",
    r"/ERNIE-4\.5-0\.3B": "ernie-4.5-0.3b",
    r"/ERNIE-4\.5-21B-A3B": "ernie-4.5-21b",
    r"/Apertus-8B": "apertus-8b",
    r"/Apertus-70B": "apertus-70b",
}
"""Published configurations by the models' names: files in `configurations/`, with what decides sizes."""

GATED = ("meta-llama/", "swiss-ai/")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PUBLISHED = [name for name in preset_names() if name != "smol"]
EVERYDAY = {"ernie4.5-21b-0.3b", "ministral3-14b-3b"}  # with experts, with images
CARDS = (8, 16, 24, 48, 80)
PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def configuration(source: str) -> Path:
    found = [name for pattern, name in CONFIGURATIONS.items() if re.search(pattern, source)]
    assert len(found) == 1, source
    return Path(__file__).parent / "configurations" / f"{found[0]}.json"


def text_settings(source: str) -> dict:
    settings = json.loads(configuration(source).read_text(encoding="utf-8"))
    return settings.get("text_config", settings)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_complete_and_consistent(name):
    preset = load_preset(name)
    recipe = preset.recipe
    recipe.check(preset.mixture)
    assert preset.name == name
    assert preset.mixture.active()
    assert preset.description.endswith(".")
    assert preset.license
    assert not recipe.allow_negative_weights
    assert preset.gated == any(str(source).startswith(GATED) for source in recipe.sources)
    assert all(delta.reference is not None for delta in recipe.behaviors.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_windows_and_vocabularies_are_those_of_the_published_configurations(name):
    preset = load_preset(name)
    base, *small = map(str, preset.recipe.sources)
    assert all(HUB_ID.fullmatch(source) for source in (base, *small))
    assert preset.vocabulary_rows.base == text_settings(base)["vocab_size"]
    assert {text_settings(source)["vocab_size"] for source in small} == {preset.vocabulary_rows.small}
    windows = [text_settings(source)["max_position_embeddings"] for source in (base, *small)]
    assert preset.context_window == min(windows)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """GiB that a preset needs for one request of 4,096 tokens, with a base in a precision."""

    def local(source: str) -> str:
        folder = root / source
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(configuration(source), folder / "config.json")
        return str(folder)

    @cache
    def sizes(settings: str, dtype: torch.dtype) -> Footprint:
        (root / "config.json").write_text(settings)
        return footprint(Checkpoint("", root), dtype)

    def shared(checkpoint: Checkpoint, dtype: torch.dtype) -> Footprint:
        return sizes((checkpoint.path / "config.json").read_text(), dtype)

    @cache
    def plan(name: str, quantization: str | None) -> float:
        preset = load_preset(name)
        behaviors = {
            key: BehaviorDelta(tuned=local(delta.tuned), reference=local(delta.reference))
            for key, delta in preset.recipe.behaviors.items()
        }
        recipe = Recipe(base=local(preset.recipe.base), behaviors=behaviors)
        config = EngineConfig(max_batch_size=1, quantization=quantization)
        return plan_recipe(recipe, preset.mixture, config, context=4096, free=0).needed / 2**30

    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_footprints, "footprint", shared)  # that of 70B takes seconds
        yield plan


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EVERYDAY else pytest.mark.full) for name in PUBLISHED]
)
def test_the_docs_say_what_memory_a_preset_needs(name, planned):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    whole, quantized = (float(cell) for cell in row.split("|")[4:6])
    assert planned(name, None) == pytest.approx(whole, abs=0.05)
    assert planned(name, "nf4") == pytest.approx(quantized, abs=0.05)


@pytest.mark.full
@pytest.mark.parametrize("card", CARDS)
def test_the_docs_recommend_what_fits_on_a_card(card, planned):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {card} GB |"))
    for quantization, cell in zip((None, "nf4"), row.split("|")[2:4], strict=True):
        names = re.findall(r"`([^`]+)`", cell)
        assert names
        assert all(planned(name, quantization) < card - 1 for name in names)


def test_the_docs_recommend_every_preset():
    table = PAGE.split("## Which pair")[1].split("These names")[0]
    assert set(re.findall(r"`([^`]+)`", table)) == set(PUBLISHED)


def test_the_window_of_the_bundled_preset_is_that_of_its_weights():
    assert EFTChatModel().profile["max_input_tokens"] == load_preset("smol").context_window


@pytest.mark.parametrize("name", preset_names())
def test_a_chat_model_of_a_preset_is_built_without_loading_and_says_what_it_will_fetch(name):
    llm = EFTChatModel(model=name)
    assert llm.recipe.sources == load_preset(name).recipe.sources
    assert llm.active_mixture == load_preset(name).mixture


def test_what_anybody_can_fetch_comes_first():
    gated = [load_preset(name).gated for name in preset_names()]
    assert gated == sorted(gated)
    assert not gated[0]


def test_the_docs_list_every_preset():
    table = PAGE.split("## Presets")[1]
    assert set(re.findall(r"^\| `(.+?)`", table, re.MULTILINE)) == set(preset_names())
    for name in preset_names():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}`"))
        assert str(load_preset(name).recipe.base).partition("/")[2] in row
        assert ("gated" in row) == load_preset(name).gated


def test_an_unknown_preset_is_answered_with_the_known_ones():
    assert load_preset("smoll") is None
    with pytest.raises(ValueError, match=r"'teapot' is neither a preset.* The presets are .*'olmo2-13b-1b'"):
        EFTChatModel(model="teapot")


def test_the_command_lists_every_preset():
    text = CliRunner().invoke(app, ["presets"], env={"COLUMNS": "200"}).stdout
    listed = json.loads(CliRunner().invoke(app, ["presets", "--json"]).stdout)
    assert [preset["name"] for preset in listed] == preset_names()
    assert all(name in text for name in preset_names())
    assert "gated" in text
    llama = next(preset for preset in listed if preset["name"] == "llama3.1-70b-8b")
    assert llama["gated"]
    assert llama["sources"][0] == "meta-llama/Llama-3.1-70B"
