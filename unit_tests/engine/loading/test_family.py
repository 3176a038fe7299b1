"""Loading a recipe: sizes, models that behaviors share, quantized bases, templates, adapters."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.loading import layout
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.hub import HubModel, Listing
from langchain_eft.engine.loading.layout import RecipeCheckpoints, weight_count
from langchain_eft.engine.loading.tokenizers import load_tokenizer
from langchain_eft.engine.models.lora import load_adapter
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.quantization import bitsandbytes_config
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.helpers import answer, request
from unit_tests.tiny import TEMPLATE, TinyFamily, config, tokenizer

CPU = torch.device("cpu")
PROMPT = [30, 31, 9, 40, 77]


def on_hub(name: str, parameters: int | None, nbytes: int) -> Checkpoint:
    return Checkpoint(
        name, hub=HubModel.parse(name), listing=Listing("c0ffee", {"m.safetensors": nbytes}, parameters)
    )


# Sizes


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
    ("parameters", "stored", "expected"),
    [(1000, 2000, 4000), (1000, 4000, 4000), (1000, 600, 600), (None, 700, 700)],
)
def test_memory_of_a_hub_model_follows_its_number_of_weights_unless_they_are_packed(
    parameters, stored, expected
):
    assert weight_count(on_hub("o/m", parameters, stored)).nbytes(torch.float32) == expected


def test_a_model_that_two_behaviors_name_is_loaded_once(family):
    same = {"tuned": str(family.folder / "tuned"), "reference": str(family.folder / "reference")}
    recipe = Recipe(
        base=str(family.folder / "base"),
        behaviors={
            "a": BehaviorDelta(**same),
            "b": BehaviorDelta(**same),
            "one": family.recipe.behaviors["one"],
        },
    )
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=64))
    engine.close()
    assert len(engine.family.models) == 3
    assert engine.family.behaviors["a"] == engine.family.behaviors["b"]


# Quantized bases


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """A base whose layers are wide enough for blocks of 64 weights, and a small pair."""
    folder = tmp_path_factory.mktemp("trio")
    torch.manual_seed(0)
    modules = {
        "base": LlamaForCausalLM(config(64, 2, 260)).eval(),
        "reference": LlamaForCausalLM(config(32, 2, 260)).eval(),
        "tuned": LlamaForCausalLM(config(32, 2, 260)).eval(),
    }
    for name, module in modules.items():
        module.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    delta = BehaviorDelta(tuned=str(folder / "tuned"), reference=str(folder / "reference"))
    return Recipe(base=str(folder / "base"), behaviors={"chat": delta}), modules


@pytest.mark.parametrize("kind", ["nf4", "llm.int8"])
def test_a_base_quantized_while_loading_decodes_like_its_own_forward_pass(trio, kind):
    recipe, plain = trio
    engine = Engine(recipe, EngineConfig(device="cpu", kv_cache_tokens=256, quantization=kind))
    try:
        base, *small = [model.module for model in engine.family.models]
        assert base.model.layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
        assert base.lm_head.weight.dtype == torch.float32
        assert {m.model.layers[0].mlp.up_proj.weight.dtype for m in small} == {torch.float32}
        assert engine.family.sizes[0] < 0.6 * sum(p.nbytes for p in plain["base"].parameters())
        events = list(engine.stream(request(PROMPT, {"chat": 1.0}, max_tokens=8, speculation=3)))
    finally:
        engine.close()
    tokens = [token for event in events for token in getattr(event, "tokens", ())]
    quantized = AutoModelForCausalLM.from_pretrained(
        str(recipe.base),
        quantization_config=bitsandbytes_config(kind, torch.float32),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    ids = torch.tensor([[*PROMPT, *tokens[:-1]]])
    with torch.inference_mode():
        total = quantized(ids).logits + plain["tuned"](ids).logits - plain["reference"](ids).logits
    assert tokens == total[0, -len(tokens) :].argmax(-1).tolist()


def test_a_missing_bitsandbytes_is_reported(monkeypatch):
    monkeypatch.setattr("langchain_eft.engine.models.quantization.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"'nf4' needs bitsandbytes: run `pip install 'langchain-eft"):
        bitsandbytes_config("nf4", torch.float32)


def test_a_base_that_is_also_a_small_model_cannot_be_quantized(family):
    small = str(family.folder / "base")
    delta = BehaviorDelta(tuned=str(family.folder / "tuned"), reference=small)
    with pytest.raises(RecipeError, match="also a small model of behavior 'x'"):
        Engine(Recipe(base=small, behaviors={"x": delta}), EngineConfig(device="cpu", quantization="nf4"))


def test_float32_weights_are_converted_to_the_configured_type(family, tmp_path):
    LlamaForCausalLM(config(32, 1, 260)).float().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    engine = Engine(Recipe(base=str(tmp_path)), EngineConfig(dtype="bfloat16", kv_cache_tokens=64))
    types = {p.dtype for p in engine.family.models[0].module.parameters()}
    engine.close()
    assert types == {torch.bfloat16}


# Templates


def test_the_chat_template_is_the_recipes_or_the_tuned_models_or_the_bases(family, tmp_path):
    def recipe(**settings) -> Recipe:
        delta = BehaviorDelta(tuned=str(tmp_path / "tuned"), reference=str(family.folder / "reference"))
        return Recipe(base=str(family.folder / "base"), behaviors={"chat": delta}, **settings)

    tuned_tokenizer = tokenizer()
    (tmp_path / "tuned").mkdir()
    assert load_tokenizer(recipe()).chat_template == TEMPLATE
    tuned_tokenizer.chat_template = "tuned"
    tuned_tokenizer.save_pretrained(tmp_path / "tuned")
    load_tokenizer.cache_clear()
    assert load_tokenizer(recipe()).chat_template == "tuned"
    (tmp_path / "own.jinja").write_text("own")
    assert load_tokenizer(recipe(chat_template=tmp_path / "own.jinja")).chat_template == "own"


# Adapters


@pytest.fixture
def adapter(family, tmp_path):
    """A function that writes a copy of an adapter with other settings."""

    def write(**settings):
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = json.loads((family.folder / "two" / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
        save_file(
            load_file(family.folder / "two" / "adapter_model.safetensors"),
            folder / "adapter_model.safetensors",
        )
        return folder

    return write


def test_patterns_match_the_ends_of_names_as_in_peft(adapter):
    plain = load_adapter(adapter(), torch.float32, CPU).updates
    patterns = {"q_proj": 12, r"layers\.1\..*up_proj": 20, "proj": 400}
    scaled = load_adapter(adapter(alpha_pattern=patterns), torch.float32, CPU).updates
    ratios = {name: float((scaled[name].up / plain[name].up).mean()) for name in plain}
    for name, ratio in ratios.items():  # lora_alpha is 4
        expected = 3 if name.endswith("q_proj") else 5 if "layers.1.mlp.up_proj" in name else 1
        assert ratio == pytest.approx(expected), name


@pytest.mark.parametrize(
    "settings",
    [
        {"use_qalora": True}, {"lora_bias": True}, {"layer_replication": [[0, 2]]},
        {"init_lora_weights": "pissa_niter_4"}, {"target_parameters": ["mlp.experts.gate_up_proj"]},
        {"trainable_token_indices": [1, 2]}, {"alora_invocation_tokens": [5]},
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_a_plain_lora_is_refused_with_the_setting(adapter, settings):
    with pytest.raises(RecipeError, match=rf"{next(iter(settings))}=.*use `tuned=`"):
        load_adapter(adapter(**settings), torch.float32, CPU)


def test_settings_that_matter_only_in_training_are_accepted(adapter):
    training = {
        "lora_dropout": 0.1,
        "init_lora_weights": "gaussian",
        "target_modules": r".*\.q_proj",
        "use_dora": None,
    }
    load_adapter(adapter(**training), torch.float32, CPU)


def test_an_adapter_of_embeddings_is_refused_with_the_reason(adapter):
    folder = adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(2, 260)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(RecipeError, match="updates an embedding, but all behaviors share"):
        load_adapter(folder, torch.float32, CPU)


def test_an_adapter_of_the_base_itself_is_a_behavior(family: TinyFamily, tmp_path):
    from unit_tests.tiny import write_adapter

    base = LlamaForCausalLM.from_pretrained(family.folder / "base")
    write_adapter(tmp_path / "own", base, ["self_attn.q_proj"], 4)
    delta = BehaviorDelta(adapter=str(tmp_path / "own"), reference=str(family.folder / "base"))
    engine = Engine(
        Recipe(base=str(family.folder / "base"), behaviors={"own": delta}), EngineConfig(kv_cache_tokens=64)
    )
    try:
        assert len(engine.family.models) == 1
        assert answer(engine, request(PROMPT, {"own": 1.0}, max_tokens=4))[1].completion_tokens <= 4
    finally:
        engine.close()
