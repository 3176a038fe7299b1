"""An exported folder: what it holds, that it comes whole or not at all, and what it refuses."""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientDiskError, RecipeError, UnsupportedModelError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export import ExportError, export_recipe
from langchain_eft.vllm.section import Behavior, EFTSection, SmallModel
from unit_tests.engine.loading.test_vocabulary import TEMPLATE, PaddedModels, tokenizer
from unit_tests.engine.models.families import HYBRIDS
from unit_tests.engine.models.test_self_check import build
from unit_tests.tiny import write_gguf

NONE = Mixture()


def content(file):
    return json.loads(file.read_text())


def test_config_json_is_the_bases_with_another_architecture_and_the_section(exported, family):
    folder, export = exported
    config = content(folder / "config.json")
    assert EFTSection.of(config) == export.section
    del config["eft"]
    assert config == content(family.folder / "base" / "config.json") | {"architectures": ["EFTForCausalLM"]}


def test_the_section_says_what_the_engine_finds(exported, engine):
    _, export = exported
    section, family = export.section, engine.family
    assert section.base_architectures == ("LlamaForCausalLM",)
    assert section.common_ids == {i for i, common in enumerate(family.vocabulary.tolist()) if common}
    assert section.vocabulary_size == len(family.vocabulary)
    assert frozenset(section.end_ids) == family.end_ids
    assert family.unscaled is None
    assert section.unscaled == ()
    assert section.window == engine.window
    assert section.default_mixture == Mixture.of({"one": 0.5})


def test_each_model_is_there_once_and_adapters_stay_adapters(exported):
    _, export = exported
    assert export.section.models == {
        "reference": SmallModel(subfolder="eft/reference"),
        "one": SmallModel(subfolder="eft/one", adapter_of="reference"),
        "two": SmallModel(subfolder="eft/two", adapter_of="reference"),
        "full": SmallModel(subfolder="eft/full"),
    }
    assert export.section.behaviors == {
        "one": Behavior(tuned="one", reference="reference"),
        "two": Behavior(tuned="two", reference="reference"),
        "full": Behavior(tuned="full", reference="reference"),
    }


def test_weights_and_tokenizers_are_hard_links(exported, family):
    folder, export = exported
    for target, source in {
        "model.safetensors": "base/model.safetensors",
        "tokenizer.json": "base/tokenizer.json",
        "eft/reference/model.safetensors": "reference/model.safetensors",
        "eft/reference/config.json": "reference/config.json",
        "eft/full/model.safetensors": "tuned/model.safetensors",
        "eft/one/adapter_model.safetensors": "one/adapter_model.safetensors",
        "eft/one/adapter_config.json": "one/adapter_config.json",
    }.items():
        assert (folder / target).samefile(family.folder / source)
    assert not (folder / "config.json").samefile(family.folder / "base" / "config.json")
    assert export.written.linked > 0


def test_symbolic_links_of_the_hubs_cache_are_followed(family, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in (family.folder / "base").iterdir():
        (snapshot / file.name).symlink_to(file)
    export_recipe(family.recipe.model_copy(update={"base": str(snapshot)}), NONE, tmp_path / "served")
    weights = tmp_path / "served" / "model.safetensors"
    assert not weights.is_symlink()
    assert weights.samefile(family.folder / "base" / "model.safetensors")


def test_the_folder_renders_conversations_as_the_engine_does(exported, engine):
    folder, _ = exported
    messages = [{"role": "user", "content": "Hello."}]
    own, served = engine.tokenizer, AutoTokenizer.from_pretrained(folder)
    assert served.apply_chat_template(messages).input_ids == own.apply_chat_template(messages).input_ids


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A base that was never trained on the chat template, and a tuned model that was."""
    folder = tmp_path_factory.mktemp("chatty")
    return PaddedModels(folder, tokenizer(), tokenizer(eos="<|im_end|>", template=TEMPLATE))


def test_answers_end_as_the_tuned_models_do(chatty, tmp_path):
    before = (chatty.folder / "base" / "tokenizer_config.json").read_bytes()
    export = export_recipe(chatty.recipe(), NONE, tmp_path / "served")
    engine = Engine(chatty.recipe())
    family = engine.family
    engine.close()

    assert frozenset(export.section.end_ids) == family.end_ids == {256, 258}
    assert set(export.section.unscaled) == set(family.unscaled.nonzero().flatten().tolist()) == {257, 258}
    assert export.section.vocabulary_size == 264  # of the smaller matrix
    assert content(tmp_path / "served" / "generation_config.json")["eos_token_id"] == [256, 258]
    served = AutoTokenizer.from_pretrained(tmp_path / "served")
    assert (served.eos_token, served.eos_token_id) == ("<|im_end|>", 258)
    assert served.chat_template == TEMPLATE
    assert served("a<|im_end|>b").input_ids == engine.tokenizer("a<|im_end|>b").input_ids
    assert (chatty.folder / "base" / "tokenizer_config.json").read_bytes() == before


def test_a_template_of_the_recipe_replaces_the_others(chatty, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0]['content'] }}")
    export_recipe(chatty.recipe(chat_template=template), NONE, tmp_path / "served")
    assert AutoTokenizer.from_pretrained(tmp_path / "served").chat_template == template.read_text()


def test_several_templates_are_refused(family, tmp_path):
    base = shutil.copytree(family.folder / "base", tmp_path / "base")
    words = AutoTokenizer.from_pretrained(base)
    words.chat_template = {"default": TEMPLATE, "tool_use": TEMPLATE}
    words.save_pretrained(base)
    with pytest.raises(RecipeError, match=r"\(default, tool_use\), and vLLM takes one: give it with"):
        export_recipe(family.recipe.model_copy(update={"base": str(base)}), NONE, tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_a_gguf_base_is_served_as_safetensors(family, tmp_path, monkeypatch):
    monkeypatch.setenv("LANGCHAIN_EFT_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "base.gguf")
    recipe = Recipe(
        base=str(tmp_path / "base.gguf"),
        behaviors={
            "same": BehaviorDelta(tuned=str(tmp_path / "base.gguf"), reference=str(tmp_path / "base.gguf"))
        },
    )
    export = export_recipe(recipe, NONE, tmp_path / "served")
    files = {file.name for file in (tmp_path / "served").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files
    assert not {"manifest.json", "eft"} & files  # the only model is the base
    assert export.section.behaviors == {"same": Behavior(tuned="base", reference="base")}


def test_an_empty_folder_may_exist(family, tmp_path):
    (tmp_path / "served").mkdir()
    export_recipe(family.recipe, NONE, tmp_path / "served")
    assert (tmp_path / "served" / "config.json").is_file()


def test_a_folder_that_holds_something_is_refused(family, tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is there already: remove it"):
        export_recipe(family.recipe, NONE, tmp_path / "served")
    with pytest.raises(ExportError, match="is there already: remove it"):
        export_recipe(family.recipe, NONE, tmp_path / "served" / "notes.txt")
    with pytest.raises(ExportError, match="is not a folder: create it"):
        export_recipe(family.recipe, NONE, tmp_path / "no" / "served")
    assert [file.name for file in tmp_path.rglob("*")] == ["served", "notes.txt"]


@pytest.fixture
def other_disk(monkeypatch):
    """As if the models were on another disk: nothing can be linked."""

    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)


def test_files_of_another_disk_are_copied(other_disk, family, tmp_path):
    seen = []
    export = export_recipe(family.recipe, NONE, tmp_path / "served", progress=seen.append)
    source, copy = family.folder / "base" / "model.safetensors", tmp_path / "served" / "model.safetensors"
    assert not copy.samefile(source)
    assert copy.read_bytes() == source.read_bytes()
    assert export.written.linked == 0
    assert export.written.copied > source.stat().st_size
    assert any(text.startswith("Copying base/model.safetensors (") for text in seen)


def test_a_full_disk_is_refused_before_anything_is_copied(other_disk, family, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr("shutil.copyfile", pytest.fail)
    with pytest.raises(InsufficientDiskError, match=r"needs \d+.\d kB on disk, but only 1.0 kB are free"):
        export_recipe(family.recipe, NONE, tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_links_need_no_space(family, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    export_recipe(family.recipe, NONE, tmp_path / "served")
    with pytest.raises(InsufficientDiskError):  # a draft model is written, not linked
        export_recipe(family.recipe, NONE, tmp_path / "with draft", draft="one")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_is_left_of_an_export_that_stops_halfway(other_disk, family, tmp_path, monkeypatch, failure):
    copy, copied = shutil.copyfile, []

    def fail_later(source, target):
        if len(copied) == 4:
            raise failure
        copied.append(copy(source, target))

    monkeypatch.setattr("shutil.copyfile", fail_later)
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else ExportError):
        export_recipe(family.recipe, NONE, tmp_path / "served")
    assert len(copied) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_line_names_the_folder(exported):
    folder, export = exported
    variable, *words = shlex.split(export.line)
    assert variable == "VLLM_USE_V2_MODEL_RUNNER=1"
    assert words[:5] == ["vllm", "serve", str(folder), "--served-model-name", "tiny"]
    assert json.loads(words[-1])["model"] == str(folder / "eft" / "draft_model")


def test_a_model_with_recurrent_layers_is_refused(tmp_path):
    hybrid = build(tmp_path, "qwen3_5_text", HYBRIDS["qwen3_5_text"])
    with pytest.raises(UnsupportedModelError, match=r"base.*\(qwen3_5_text\) has recurrent layers"):
        export_recipe(hybrid.recipe, NONE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
