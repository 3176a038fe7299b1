"""Plans from configurations alone, compared with the measured sizes of an engine of the same recipe."""

import json

import pytest
from transformers import AutoConfig, LlamaConfig
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.diagnostics.bench import weights_read
from langchain_eft.diagnostics.plan import plan_recipe
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.hub import HubModel, Listing
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture

CONFIG = EngineConfig(device="cpu", dtype="float32", max_batch_size=4)


def planned(recipe, mixture=None, config=CONFIG, **settings):
    return plan_recipe(recipe, Mixture.of(mixture or {}), config, **settings)


def part(plan, what):
    return next(part for part in plan.parts if part.what == what)


def test_memory_equals_that_of_an_engine(family, engine, reference):
    plan = planned(family.recipe, {"one": 1.0}, context=100)
    weights = sum(p.nbytes for p in plan.parts if p.what not in ("keys and values", "logits"))
    # The plan leaves out rotary frequencies, and the zeros of adapters between the parts of fused layers.
    assert weights == pytest.approx(engine.stats().weight_bytes, rel=0.02)
    assert part(plan, "base").parameters == sum(p.numel() for p in reference.base.parameters())
    measured = sum(m.variants * sum(m.bytes_per_token.values()) for m in engine.family.models)
    assert plan.kv_bytes == measured
    assert part(plan, "keys and values").nbytes == 4 * 100 * measured
    assert plan.window == engine.window == 1024
    assert plan.fits
    assert plan.verdict.startswith("Fits: ")


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [{}, {"one": 1.0}, {"full": 1.0}, {"full": 0.5, "two": 0.5}])
def test_bytes_per_token_equal_those_that_a_pass_reads(family, engine, mixture):
    plan = planned(family.recipe, mixture, bytes_per_second=1e6)
    plain = plan.speeds[1]
    assert plain.what == "plain"
    assert plain.bytes_per_token == weights_read(engine, Mixture.of(mixture))
    assert plain.tokens_per_second == pytest.approx(1e6 / plain.bytes_per_token)


def test_speculation_follows_the_cost_formula(family):
    plan = planned(family.recipe, {"full": 1.0})
    alone, plain, *drafted = plan.speeds
    draft = part(plan, "tuned full").nbytes
    assert [row.what.split(", ")[1] for row in drafted] == ["50% accepted", "70% accepted", "90% accepted"]
    for row, rate in zip(drafted, (0.5, 0.7, 0.9), strict=True):
        length = int(row.what.split()[0])
        tokens = (1 - rate ** (length + 1)) / (1 - rate)
        assert row.bytes_per_token == pytest.approx((length * draft + plain.bytes_per_token) / tokens)
    assert drafted[0].bytes_per_token > drafted[1].bytes_per_token > drafted[2].bytes_per_token
    assert alone.bytes_per_token < plain.bytes_per_token
    assert len(planned(family.recipe).speeds) == 2, "no model drafts for the base alone"


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_gets_remedies(family):
    large = planned(family.recipe, context=1000)
    auto = EngineConfig(device="cpu", max_batch_size=4)
    other_machine = planned(family.recipe, config=auto, context=1000, free=int(large.needed * 0.9))
    assert part(other_machine, "base").precision == "bfloat16", "another machine is planned as a GPU"
    assert other_machine.fits
    config = CONFIG.model_copy(update={"kv_cache_tokens": 64})
    tight = planned(family.recipe, config=config, context=64)
    too_large = planned(family.recipe, config=config, context=64, free=tight.needed - 1)
    assert not too_large.fits
    assert "dtype='bfloat16'" in too_large.verdict
    assert "quantization='nf4'" in too_large.verdict
    fewer_tokens = planned(family.recipe, context=1000, free=large.needed - large.kv_bytes * 1000)
    assert "kv_cache_tokens=" in fewer_tokens.verdict
    hopeless = planned(family.recipe, free=1000)
    assert hopeless.remedies == ()
    assert "more memory" in hopeless.verdict


def test_an_unsupported_model_is_refused_without_its_weights(tmp_path):
    AutoConfig.for_model("mamba").save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="recurrent"):
        planned(Recipe(base=str(tmp_path)))


@pytest.fixture
def hub_configs(monkeypatch, tmp_path):
    """A hub that hands out configurations and nothing else."""
    large = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 264}
    configs = {
        "o/large": LlamaConfig(num_hidden_layers=4, intermediate_size=128, **large),
        "o/small": LlamaConfig(num_hidden_layers=2, intermediate_size=64, **large),
    }
    read = AutoConfig.from_pretrained

    def from_pretrained(name, **settings):
        return configs[name] if name in configs else read(name, **settings)

    def adapter_file(repo, name, revision=None, subfolder=None):
        folder = tmp_path / repo / (subfolder or "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "o/small"}))
        return str(folder / name)

    def find_checkpoint(source):
        hub = HubModel.parse(str(source))
        size = {"o/lora": {"adapter_model.safetensors": 4000}}.get(hub.repo, {})
        return Checkpoint(str(source), hub=hub, listing=Listing("c0ffee", size, None))

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", adapter_file)
    monkeypatch.setattr("langchain_eft.diagnostics.plan.recipe_footprints.find_checkpoint", find_checkpoint)
    monkeypatch.setattr("langchain_eft.engine.loading.layout.find_checkpoint", find_checkpoint)
    return configs


def test_hub_models_need_only_their_configurations(hub_configs):
    recipe = Recipe(
        base="o/large",
        behaviors={
            "chat": BehaviorDelta(tuned="o/small@v2", reference="o/small"),
            "house": BehaviorDelta(adapter="o/lora/house"),
        },
    )
    hub_configs["o/small@v2"] = hub_configs["o/small"]
    plan = planned(recipe, {"chat": 1.0})
    assert [p.what for p in plan.parts] == [
        "base", "reference of chat, house", "tuned chat", "adapter house", "keys and values", "logits"
    ]  # fmt: skip
    assert part(plan, "adapter house").parameters == 1000
    layers = 4 + 2 * 2 + 2  # the reference's layers twice, for its adapter
    assert plan.kv_bytes == layers * 2 * 2 * 16 * 4


def test_the_command_prints_tables_or_json_and_exits_with_the_verdict(family):
    run = CliRunner().invoke
    model = ["plan", "--model", str(family.folder / "base"), "--bandwidth", "10", "--requests", "2"]
    text = run(app, model, env={"COLUMNS": "160"})
    assert text.exit_code == 0
    assert "keys and values" in text.stdout
    assert "Fits: " in text.stdout
    too_large = run(app, [*model, "--quantization", "nf4", "--memory", "0.00001", "--json"])
    assert too_large.exit_code == 1
    plan = json.loads(too_large.stdout)
    assert not plan["fits"]
    assert plan["free"] == int(0.00001 * 2**30)
    assert plan["parts"][0]["precision"] == "nf4"
    assert plan["speeds"][0]["tokens_per_second"] == pytest.approx(
        10e9 / plan["speeds"][0]["bytes_per_token"]
    )
    assert run(app, [*model, "--quantization", "int3"]).exit_code == 1
