"""Draft models: a merged copy equals the adapter's model, and what cannot draft is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export import export_recipe
from unit_tests.engine.loading.test_vocabulary import TEMPLATE, PaddedModels, tokenizer


def assert_same_logits(folder, expected):
    model, report = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    ids = torch.tensor([[5, 70, 12, 9]])
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, expected(ids).logits)


def test_an_adapter_is_merged_and_gets_the_bases_embeddings(exported, reference):
    folder, _ = exported
    assert_same_logits(folder / "eft" / "draft_model", reference.small["one"])


def test_a_model_in_several_files_is_merged_file_by_file(family, reference, tmp_path):
    parts = shutil.copytree(family.folder / "reference", tmp_path / "parts")
    tensors = load_file(parts / "model.safetensors")
    (parts / "model.safetensors").unlink()
    for number, names in enumerate((sorted(tensors)[:5], sorted(tensors)[5:])):
        save_file({name: tensors[name] for name in names}, parts / f"part-{number}.safetensors")
    recipe = Recipe(
        base=str(family.folder / "base"),
        behaviors={"one": BehaviorDelta(adapter=str(family.folder / "one"), reference=str(parts))},
    )
    export_recipe(recipe, Mixture(), tmp_path / "served", draft="one")
    assert_same_logits(tmp_path / "served" / "eft" / "draft_model", reference.small["one"])


def test_a_whole_tuned_model_drafts_as_it_is(family, tmp_path):
    export = export_recipe(family.recipe, Mixture(), tmp_path / "served", draft="full")
    assert not (tmp_path / "served" / "eft" / "draft_model").exists()
    assert json.loads(export.line.rsplit("'", 2)[1])["model"] == str(tmp_path / "served" / "eft" / "full")


def test_a_draft_needs_a_behavior_of_the_recipe(family, tmp_path):
    with pytest.raises(RecipeError, match="'three' is not a behavior: the recipe has 'full', 'one', 'two'"):
        export_recipe(family.recipe, Mixture(), tmp_path / "served", draft="three")


def test_the_base_does_not_draft_for_itself(family, tmp_path):
    base, tuned = str(family.folder / "base"), str(family.folder / "tuned")
    recipe = Recipe(base=base, behaviors={"up": BehaviorDelta(tuned=base, reference=tuned)})
    with pytest.raises(RecipeError, match="'up' is the base, which cannot draft for itself"):
        export_recipe(recipe, Mixture(), tmp_path / "served", draft="up")


def test_a_draft_needs_as_many_rows_as_the_base(tmp_path):
    models = PaddedModels(tmp_path, tokenizer(), tokenizer(eos="<|im_end|>", template=TEMPLATE))
    with pytest.raises(RecipeError, match=r"has 264 rows of embeddings, and the base .* has 272"):
        export_recipe(models.recipe(), Mixture(), tmp_path / "served", draft="chat")
    assert not (tmp_path / "served").exists()
