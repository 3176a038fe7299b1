"""LoRA adapters are read as PEFT reads them, or refused with the setting."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError
from langchain_eft.engine.models.lora import load_adapter
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


def test_scale_is_alpha_over_rank_or_over_its_root(family):
    folder = family.folder / "one"
    plain = load_adapter(folder, torch.float32, CPU)
    raw = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    up = raw[f"base_model.model.{name}.lora_B.weight"]
    torch.testing.assert_close(plain.updates[name].up, 2 * up)


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
