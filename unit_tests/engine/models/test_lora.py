"""LoRA adapters are read as PEFT reads them, or refused with the setting."""

import copy
import json
import re
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from langchain_eft.engine.errors import CheckpointNotFoundError, EngineError, RecipeError
from langchain_eft.engine.models import lora
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.lora import load_adapter
from unit_tests.helpers import flip_bytes, slow
from unit_tests.tiny import RANKS

CPU = torch.device("cpu")


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
        {"trainable_token_indices": [1, 2]},
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_a_plain_lora_is_refused_with_the_setting(adapter, settings):
    with pytest.raises(RecipeError, match=rf"{next(iter(settings))}=.*use `tuned=`"):
        load_adapter(adapter(**settings), torch.float32, CPU)


def test_settings_that_matter_only_in_training_are_accepted(adapter):
    training = {
        "lora_dropout": 0.1,
        "init_lora_weights": "gaussian",
        "target_modules": r".*\.(q|v|up)_proj",
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


def test_scale_is_alpha_over_rank_or_over_its_root(family):
    folder = family.folder / "one"
    plain = load_adapter(folder, torch.float32, CPU)
    raw = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    up = raw[f"base_model.model.{name}.lora_B.weight"]
    torch.testing.assert_close(plain.updates[name].up, 2 * up)


@pytest.mark.parametrize("tokens", [None, [], [5, 6]])
def test_an_activated_adapter_says_which_tokens_invoke_it(adapter, tokens):
    read = load_adapter(adapter(alora_invocation_tokens=tokens), torch.float32, CPU)
    assert read.invocation == tuple(tokens or ())


@pytest.mark.parametrize(
    ("settings", "negated"),
    [
        ({}, False),
        ({"lora_alpha": -64}, True),
        ({"alpha_pattern": {"q_proj": -1}}, True),
        ({"alpha_pattern": {"no_such_layer": -1}}, False),
    ],
)
def test_a_negative_scale_negates_the_adapter(adapter, settings, negated):
    assert load_adapter(adapter(**settings), torch.float32, CPU).negated == negated


def test_rank_stabilized_scale(adapter):
    plain = load_adapter(adapter(), torch.float32, CPU).updates
    stable = load_adapter(adapter(use_rslora=True), torch.float32, CPU).updates
    name = "model.layers.0.self_attn.q_proj"
    torch.testing.assert_close(stable[name].up, plain[name].up * RANKS["two"] ** 0.5)


@pytest.mark.parametrize(
    "config", [{"peft_type": "IA3"}, {"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}]
)
def test_adapters_that_are_not_plain_lora_are_refused_by_name(adapter, config):
    with pytest.raises(RecipeError, match=f"{next(iter(config))}=.*use `tuned=`"):
        load_adapter(adapter(**config), torch.float32, CPU)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"adapter_config\.json.*save_pretrained"):
        load_adapter(tmp_path, torch.float32, CPU)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"r": 3}, r"up_proj.*rank 3"), ({"r": 0}, "r=0"), ({"r": None}, "r=None"), ({"r": "2"}, "r='2'"),
        ({"rank_pattern": {"up_proj": 8}}, r"up_proj.*rank 8"),
        ({"lora_alpha": "x"}, "lora_alpha='x'"), ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
        ({"alpha_pattern": [1]}, r"alpha_pattern=\[1\]"), ({"target_modules": 5}, "target_modules=5"),
        ({"target_modules": ["nope"]}, r"layer.*target_modules=\['nope'\]"),
        ({"target_modules": r".*\.q_proj"}, r"(up|v)_proj.*target_modules="),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_or_contradict_the_tensors_are_refused(adapter, settings, named):
    folder = adapter(**settings)
    with pytest.raises(RecipeError, match=rf"{folder}.*{named}.*save it again"):
        load_adapter(folder, torch.float32, CPU)


def test_ranks_by_pattern_are_those_of_peft(adapter):
    adapter_ = adapter(r=8, rank_pattern={r"(q|v|up)_proj": RANKS["two"]}, lora_alpha=8)
    scaled = load_adapter(adapter_, torch.float32, CPU).updates
    plain = load_adapter(adapter(), torch.float32, CPU).updates  # lora_alpha is 4
    for name, update in plain.items():
        torch.testing.assert_close(scaled[name].up, 2 * update.up)


@pytest.mark.parametrize("content", [b"", b"{", b"5", b'"x"', b"\xff"])
def test_damaged_settings_are_named(adapter, content):
    folder = adapter()
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(CheckpointNotFoundError, match=rf"{folder}/adapter_config\.json.*save it again"):
        load_adapter(folder, torch.float32, CPU)


@pytest.mark.parametrize(
    "pattern",
    ["(", r"(.)\1proj", "(?=q)q_proj", "((((x?){1000}){1000}){1000}){1000}", "a|" * 10_000],
    ids=lambda pattern: pattern[:20],
)
@pytest.mark.parametrize("setting", ["target_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_that_cannot_be_matched_in_a_bounded_time_is_named(adapter, pattern, setting):
    folder = adapter(**{setting: pattern if setting == "target_modules" else {pattern: 2}})
    with pytest.raises(RecipeError, match=rf"{folder}.*{re.escape(pattern[:3])}.*name the layers") as error:
        load_adapter(folder, torch.float32, CPU)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("length", [30, 100_000])
def test_a_pattern_that_backtracks_for_ever_in_python_takes_no_time(adapter, length):
    folder = adapter(target_modules="(([a-z._0-9])+)+X")
    tensors = {f"base_model.model.{'a' * length}.lora_{m}.weight": torch.ones(2, 2) for m in "AB"}
    save_file(tensors, folder / "adapter_model.safetensors")
    started = time.process_time()
    with pytest.raises(RecipeError, match="not among its target_modules"):
        load_adapter(folder, torch.float32, CPU)
    assert time.process_time() - started < 10


def test_patterns_that_take_too_long_together_are_refused(adapter, monkeypatch):
    monkeypatch.setattr(lora, "_PATIENCE", 0.1)
    patterns = {rf"({i}|\pL{{200}})": 2 for i in range(10_000)}
    with pytest.raises(RecipeError, match=r"pattern.*all together take longer than"):
        load_adapter(adapter(alpha_pattern=patterns), torch.float32, CPU)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_truncated_weights_are_named(adapter, size):
    folder = adapter()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(CheckpointNotFoundError, match=rf"{weights}.*save it again"):
        load_adapter(folder, torch.float32, CPU)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(float("nan"), torch.float32), (float("-inf"), torch.float32), (1e30, torch.float16)],
)
@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_values_that_are_no_numbers_are_refused_with_the_layer(adapter, value, dtype, factor):
    folder = adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.model.layers.1.mlp.up_proj.{factor}.weight"][1, 1] = value
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointNotFoundError, match=r"adapter_model.*NaN or infinite.*layers\.1\.mlp\.up_proj"
    ):
        load_adapter(folder, dtype, CPU)


@pytest.mark.parametrize("seeds", [range(40), *slow(range(40, 640))])
def test_an_adapter_with_flipped_bytes_is_refused_by_name_or_fits(family, adapter, seeds):
    folder = adapter()
    intact = {file: file.read_bytes() for file in folder.iterdir()}
    model = LlamaForCausalLM.from_pretrained(family.folder / "tuned")
    messages = []
    for seed in seeds:
        for file, content in intact.items():
            file.write_bytes(content)
        flip_bytes(sorted(intact)[seed % 4 == 0], seed)
        try:
            loaded = load_adapter(folder, torch.float32, CPU)
            CausalModel("tuned", copy.deepcopy(model), [loaded])
        except EngineError as error:
            messages.append(str(error))
    assert 0 < len(messages) < len(seeds)
    assert [message for message in messages if str(folder) not in message] == []
