"""Presets are data: well-formed, complete, and true where the truth is known."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_eft import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.presets import load_preset, preset_names

ROWS = {
    r"OLMo-2-": 100352,
    r"Qwen2\.5-(0\.5|1\.5|3)B": 151936,
    r"Qwen2\.5-(7|14|32|72)B": 152064,
    r"Qwen3-": 151936,
    r"SmolLM2-|/smol/": 49152,
    r"Falcon3-": 131072,
    r"Llama-3": 128256,
    r"Llama-2-": 32000,
    r"gemma-3-(270m|1b)-": 262144,
    r"gemma-3-(4|12|27)b-": 262208,
}
"""Rows of the embeddings of published models by their names."""

GATED = ("meta-llama/", "google/")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def rows(source) -> int:
    found = [count for pattern, count in ROWS.items() if re.search(pattern, str(source))]
    assert len(found) == 1, source
    return found[0]


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
    assert preset.vocabulary_rows.base == rows(recipe.base)
    for delta in recipe.behaviors.values():
        assert delta.reference is not None
        assert preset.vocabulary_rows.small == rows(delta.reference) == rows(delta.tuned or delta.adapter)
    assert abs(preset.vocabulary_rows.base - preset.vocabulary_rows.small) <= 128
    if name != "smol":
        assert all(HUB_ID.fullmatch(str(source)) for source in recipe.sources)


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
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.split("## Presets")[1]
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
    llama = next(preset for preset in listed if preset["name"] == "llama2-70b-7b")
    assert llama["gated"]
    assert llama["sources"][0] == "meta-llama/Llama-2-70b-hf"
