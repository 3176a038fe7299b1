"""Which recipes vLLM can serve, and the names of their models."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError
from langchain_eft.engine.progress import silent
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export import export_recipe
from langchain_eft.vllm.export.exported_models import ExportedModels


@pytest.fixture
def base(family):
    return str(family.folder / "base")


def refusal(recipe, tmp_path, error=RecipeError) -> str:
    with pytest.raises(error) as refused:
        export_recipe(recipe, Mixture(), tmp_path / "served")
    assert not (tmp_path / "served").exists()
    return str(refused.value)


@pytest.mark.parametrize(("field", "value"), [("prompt", "Talk like a pirate."), ("without", "context")])
def test_behaviors_that_compare_prompts_are_refused_by_name(base, family, tmp_path, field, value):
    recipe = Recipe(
        base=base, behaviors={**family.recipe.behaviors, "guided": BehaviorDelta(**{field: value})}
    )
    message = refusal(recipe, tmp_path)
    assert f"'guided' has {field}={value!r}" in message
    assert "leave the behavior out, or serve the recipe with `langchain-eft serve`" in message


def test_a_template_for_the_base_is_refused(family, tmp_path):
    recipe = family.recipe.model_copy(update={"base_template": "transcript"})
    assert "base_template='transcript' gives the base a prompt of its own" in refusal(recipe, tmp_path)


def test_a_recipe_without_behaviors_is_refused(base, tmp_path):
    assert "has no behavior, so there is nothing to mix" in refusal(Recipe(base=base), tmp_path)


def test_a_mixture_that_the_recipe_cannot_decode_is_refused(family, tmp_path):
    for mixture, message in (
        ({"three": 1.0}, "Unknown behavior 'three'"),
        ({"one": -1.0}, "negative weights"),
    ):
        with pytest.raises(RecipeError, match=message):
            export_recipe(family.recipe, Mixture.of(mixture), tmp_path / "served")


def test_a_quantized_small_model_is_refused(base, family, tmp_path):
    packed = shutil.copytree(family.folder / "tuned", tmp_path / "packed")
    config = json.loads((packed / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "awq"}
    }
    (packed / "config.json").write_text(json.dumps(config))
    delta = BehaviorDelta(tuned=str(packed), reference=str(family.folder / "tuned"))
    assert "is quantized, and here only the base may be" in refusal(
        Recipe(base=base, behaviors={"packed": delta}), tmp_path
    )


def test_an_update_that_finds_no_weight_is_refused(family, base, tmp_path):
    adapter = shutil.copytree(family.folder / "one", tmp_path / "adapter")
    delta = BehaviorDelta(adapter=str(adapter), reference=str(family.folder / "reference"))
    recipe = Recipe(base=base, behaviors={"one": delta})
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name.replace("layers.1.", "layers.7."): tensor for name, tensor in tensors.items()}, file)
    message = refusal(recipe, tmp_path)
    assert "updates the weight of 'model.layers.7." in message
    assert "holds no such weight: name the model that the adapter was trained on" in message

    wide = {name: tensor.repeat(1, 2) if "lora_A" in name else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in wide.items()}, file)
    assert "holds one of shape [32, " in refusal(recipe, tmp_path)


def test_weights_in_another_format_are_refused(family, base, tmp_path):
    other = shutil.copytree(family.folder / "tuned", tmp_path / "other")
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    delta = BehaviorDelta(tuned=str(other), reference=str(family.folder / "reference"))
    message = refusal(Recipe(base=base, behaviors={"one": delta}), tmp_path, CheckpointNotFoundError)
    assert "holds no .safetensors file: save the model again" in message


def test_a_negative_scale_is_remembered(family, base, tmp_path):
    adapter = shutil.copytree(family.folder / "one", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": -8}))
    delta = BehaviorDelta(adapter=str(adapter), reference=str(family.folder / "reference"))
    export = export_recipe(Recipe(base=base, behaviors={"one": delta}), Mixture(), tmp_path / "served")
    assert export.section.models["one"].negated


def test_an_adapter_that_does_not_act_on_all_tokens_is_refused(family, base, tmp_path):
    adapter = shutil.copytree(family.folder / "one", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"alora_invocation_tokens": [5]}))
    delta = BehaviorDelta(adapter=str(adapter), reference=str(family.folder / "reference"))
    message = refusal(Recipe(base=base, behaviors={"one": delta}), tmp_path)
    assert "is an activated LoRA" in message
    assert "decode it with this package's own engine" in message


def test_any_names_of_behaviors_become_names_of_folders(family, base):
    adapter, other = str(family.folder / "one"), str(family.folder / "two")
    tuned, reference = str(family.folder / "tuned"), str(family.folder / "reference")
    recipe = Recipe(
        base=base,
        behaviors={
            "Très/poli": BehaviorDelta(adapter=adapter),
            "../..": BehaviorDelta(adapter=other),
            "reference": BehaviorDelta(tuned=tuned, reference=reference),
            "base": BehaviorDelta(adapter=adapter, reference=tuned),
            "same": BehaviorDelta(adapter=adapter),
        },
    )
    models = ExportedModels.fetch(recipe, silent)
    assert {name: (behavior.tuned, behavior.reference) for name, behavior in models.behaviors.items()} == {
        "Très/poli": ("tr-s-poli", "reference"),
        "../..": ("model", "reference"),
        "reference": ("reference-2", "reference"),
        "base": ("base-2", "reference-2"),
        "same": ("tr-s-poli", "reference"),  # the same adapter of the same model
    }
    assert models.small["base-2"].adapter_of == "reference-2"
