"""Plans of vLLM on clusters, and the command that prints them."""

import json

import pytest
from transformers import LlamaConfig
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.diagnostics.plan import plan_cluster, sharded_models
from langchain_eft.diagnostics.plan.cluster_plan import batch_sizes
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.diagnostics.plan.shapes import cluster, model


def test_memory_of_a_card_by_hand():
    pair = [model(), model("reference of chat")]
    plan = plan_cluster(pair, cluster(2), requests=4, context=1000)
    base, reference, logits, reserved = plan.parts
    assert base.nbytes == reference.nbytes == 120_000_000
    assert base.parameters == 120_000_000
    shard = 4 * 10_000 / 2
    assert logits.nbytes == shard * (2 * 2 + 4) + 3 * 4 * 10_000 * 4
    assert reserved.nbytes == 3 * 2**30
    assert plan.usable == 1_840_000_000
    assert plan.kv_bytes == 2 * 4000
    assert plan.kv_tokens == 0
    assert not plan.fits, "the reserve alone is larger than these cards"


def test_what_is_left_holds_keys_and_values(monkeypatch):
    monkeypatch.setattr("langchain_eft.diagnostics.plan.cluster_plan.RESERVED_BYTES", 0)
    plan = plan_cluster([model()], cluster(1), requests=32, context=5000)
    logits = 32 * 10_000 * (2 + 4) + 3 * 32 * 10_000 * 4
    assert plan.kv_tokens == (1_840_000_000 - 240_000_000 - logits) // 8000
    assert plan.fits
    assert [step.batch for step in plan.steps] == [1, 8, 32]
    assert [step.fits for step in plan.steps] == [True, True, True]
    full = plan_cluster([model()], cluster(1), requests=32, context=7000)
    assert [step.fits for step in full.steps] == [True, True, False]
    assert full.steps[0].tokens_per_second == pytest.approx(1 / full.steps[0].time.seconds)
    assert full.steps[0].times_base == 1


def test_batch_sizes_end_with_the_largest():
    assert batch_sizes(1) == [1]
    assert batch_sizes(8) == [1, 8]
    assert batch_sizes(16) == [1, 8, 16]
    assert batch_sizes(256) == [1, 8, 32, 128, 256]


def test_models_of_a_recipe(family):
    models = sharded_models(family.recipe, "fp8")
    adapters = [name for name, delta in family.recipe.behaviors.items() if delta.adapter]
    assert models[0].role == "base"
    assert models[0].precision == "fp8"
    assert [each.precision for each in models[1:]] == ["bfloat16"] * (len(models) - 1)
    reference = next(each for each in models if each.adapters)
    assert set(reference.adapters) == set(adapters)
    assert adapters, "the family has adapters, which are rows of their reference's pass"
    plan = plan_cluster(models, cluster(1), requests=1, context=1)
    assert {f"adapter {name}" for name in adapters} <= {part.what for part in plan.parts}


def test_a_behavior_by_prompt_is_refused(family):
    prompt = BehaviorDelta(prompt="Be brief.")
    recipe = Recipe(base=family.recipe.base, behaviors={"brief": prompt})
    with pytest.raises(RecipeError, match="'brief' lets a model read a second text"):
        sharded_models(recipe)


def test_a_quantized_base_that_is_a_small_model_too_is_refused(family):
    base, tuned = family.recipe.base, next(d.tuned for d in family.recipe.behaviors.values() if d.tuned)
    recipe = Recipe(base=base, behaviors={"full": BehaviorDelta(tuned=tuned, reference=base)})
    assert len(sharded_models(recipe)) == 2
    with pytest.raises(RecipeError, match="amplify the rounding error of int4"):
        sharded_models(recipe, "int4")


SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 264}


@pytest.fixture
def folders(tmp_path):
    """A base, a reference and a tuned model, of which there are only configurations."""
    for name, layers in (("base", 4), ("small", 2), ("tuned", 2)):
        LlamaConfig(**SMALL, intermediate_size=128, num_hidden_layers=layers).save_pretrained(tmp_path / name)
    return tmp_path


def options(folder):
    return [
        "plan", "--model", str(folder / "base"), "--behavior", f"chat={folder / 'tuned'}",
        "--reference", str(folder / "small"),
    ]  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "140"})


def test_the_command_compares_clusters(folders):
    result = run(*options(folders), "--cards", "2xH100", "--cards", "1xB200", "--context", "100")
    assert result.exit_code == 0
    for text in ("2xH100", "1xB200", "tuned chat", "tokens that fit", "16 requests", "all 3 models", "fits:"):
        assert text in result.stdout
    plans = json.loads(run(*options(folders), "--cards", "2xH100", "--json").stdout)
    (plan,) = plans
    assert plan["cards"] == "2xH100"
    layers = 4 + 2 + 2
    assert plan["kv_bytes"] == layers * 2 * 1 * 16 * 2  # one of two KV heads of 16 numbers, in bfloat16
    assert plan["fits"]
    assert plan["steps"][0]["tokens_per_second"] == pytest.approx(1 / plan["steps"][0]["seconds"])
    assert sum(plan["steps"][0]["causes"].values()) == pytest.approx(plan["steps"][0]["seconds"])


def test_a_folder_with_a_configuration_only_has_its_weights(folders):
    (plan,) = json.loads(run(*options(folders), "--cards", "1xH100", "--json").stdout)
    embeddings = 2 * 264 * 64
    layer = (2 * 64 * 64 + 2 * 64 * 32) + 3 * 64 * 128 + 2 * 64
    assert plan["parts"][0]["parameters"] == embeddings + 4 * layer + 64


def test_formats_reach_the_plan(folders):
    def planned(*arguments):
        (plan,) = json.loads(run(*options(folders), "--cards", "1xH100", "--json", *arguments).stdout)
        return plan

    assert planned("--quantization", "int4")["parts"][0]["precision"] == "int4"
    assert planned("--kv-cache-dtype", "fp8")["kv_bytes"] == planned()["kv_bytes"] // 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cards", "8xA100"], "8xA100"),
        (["--cards", "8xH100"], "choose a tensor parallel size of 1 or 2 or 4"),
        (["--cards", "1xH100", "--memory", "80"], "leave --memory and --bandwidth out"),
        (["--cards", "1xH100", "--quantization", "nf4"], "use fp8, int8, int4"),
        (["--cards", "1xH100", "--kv-cache-dtype", "int8"], "use auto or fp8"),
        (["--kv-cache-dtype", "fp8"], "option of --cards"),
    ],
)
def test_what_cannot_be_planned_is_one_line(folders, arguments, message):
    result = run(*options(folders), *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not result.stdout


def test_the_exit_code_says_whether_it_fits_anywhere(folders):
    result = run(*options(folders), "--cards", "1xH100", "--context", "1000000000")
    assert result.exit_code == 1
    assert "does not fit" in result.stdout


def test_a_base_in_a_format_of_unknown_size_is_refused(folders):
    config = json.loads((folders / "base" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folders / "base" / "config.json").write_text(json.dumps(config))
    result = run(*options(folders), "--cards", "1xH100")
    assert result.exit_code == 1
    assert "say quantization='fp8'" in " ".join(result.stderr.split())
    assert run(*options(folders), "--cards", "1xH100", "--quantization", "fp8").exit_code == 0
