"""The line that starts vLLM: what options add to it, and which of them a recipe refuses."""

import json
import shlex
import shutil

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export import ServeOptions, export_recipe


def words(recipe, folder, draft=None, **options) -> list[str]:
    return shlex.split(export_recipe(recipe, Mixture(), folder, ServeOptions(**options), draft).line)


def option(line, name):
    return line[line.index(name) + 1]


def test_the_plain_line_names_the_backend_of_grammars(family, tmp_path):
    assert words(family.recipe, tmp_path / "my models") == [
        "vllm", "serve", str(tmp_path / "my models"), "--served-model-name", "my models",
        "--structured-outputs-config", '{"backend": "guidance"}',
    ]  # fmt: skip


def test_options_become_options_of_vllm(family, tmp_path):
    line = words(family.recipe, tmp_path / "served", tensor_parallel=2, quantization="fp8")
    assert (option(line, "--tensor-parallel-size"), option(line, "--quantization")) == ("2", "fp8")


def test_a_draft_model_comes_with_the_runner_that_can_use_it(family, tmp_path):
    variable, *line = words(family.recipe, tmp_path / "served", "full")
    assert variable == "VLLM_USE_V2_MODEL_RUNNER=1"
    assert json.loads(option(line, "--speculative-config")) == {
        "method": "draft_model",
        "model": str(tmp_path / "served" / "eft" / "full"),
        "num_speculative_tokens": 3,
    }


def test_heads_that_ranks_cannot_share_are_refused(family, tmp_path):
    with pytest.raises(RecipeError, match=r"has 4 attention heads and 2 .* 3 ranks .* size of 1 or 2 or 4"):
        words(family.recipe, tmp_path / "served", tensor_parallel=3)
    assert not (tmp_path / "served").exists()


def test_a_base_that_is_also_a_small_model_is_not_quantized(family, tmp_path):
    base, tuned = str(family.folder / "base"), str(family.folder / "tuned")
    recipe = Recipe(base=base, behaviors={"up": BehaviorDelta(tuned=base, reference=tuned)})
    with pytest.raises(
        RecipeError, match=r"'fp8' would quantize the base, which is also a small model .* 'up'"
    ):
        words(recipe, tmp_path / "served", quantization="fp8")


def test_a_quantized_base_is_not_quantized_again(family, tmp_path):
    packed = shutil.copytree(family.folder / "base", tmp_path / "packed")
    config = json.loads((packed / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "awq"}
    }
    (packed / "config.json").write_text(json.dumps(config))
    recipe = family.recipe.model_copy(update={"base": str(packed)})
    with pytest.raises(RecipeError, match="is quantized already, which vLLM finds by itself"):
        words(recipe, tmp_path / "served", quantization="fp8")
    assert "--quantization" not in words(recipe, tmp_path / "served")
