"""What vLLM is refused before it loads anything."""

from __future__ import annotations

import json
import logging
import shutil
from types import SimpleNamespace

import pytest

from vllm_tests.engines import SETTINGS, V2
from vllm_tests.tiny import SECTION

pytestmark = pytest.mark.skipif(V2, reason="settings are checked before there is a runner")

QUIET = {name: value for name, value in SETTINGS.items() if name != "disable_log_stats"}


def configure(folder, **settings):
    from vllm import EngineArgs

    return EngineArgs(model=str(folder), **(QUIET | settings)).create_engine_config()


def draft(method: str) -> dict:
    return {"speculative_config": {"method": method, "num_speculative_tokens": 2, "prompt_lookup_max": 2}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pipeline_parallel_size": 2}, "cannot be pipelined"),
        ({"enable_lora": True}, "leave out --enable-lora"),
        ({"enable_prompt_embeds": True}, "leave out --enable-prompt-embeds"),
        ({"trust_remote_code": True}, "leave out --trust-remote-code"),
        (draft("ngram"), "VLLM_USE_V2_MODEL_RUNNER=1"),
        (
            {"tensor_parallel_size": 2},
            "'wide-reference' has 3 attention heads.*choose a tensor parallel size",
        ),
        ({"hf_overrides": {"eft": None}}, "no section 'eft'"),
        ({"hf_overrides": {"eft": SECTION | {"version": 9}}}, "has version 9"),
        ({"hf_overrides": {"eft": SECTION | {"mixture": {"own": 2.0}}}}, "exponent -1"),
    ],
)
def test_a_setting_that_cannot_be_served_is_refused(family, settings, message):
    with pytest.raises(ValueError, match=message):
        configure(family, **settings)


def test_a_method_that_reads_hidden_states_is_refused(family, monkeypatch):
    from langchain_eft.vllm import settings

    config = configure(family)
    monkeypatch.setattr(type(config), "use_v2_model_runner", property(lambda _: True))
    config.speculative_config = type("Speculative", (), {"method": "eagle"})()

    with pytest.raises(ValueError, match="'eagle' reads hidden states of the base"):
        settings.EFTSettings.verify_and_update_config(config)


def test_a_quantized_small_model_is_refused(family, tmp_path):
    folder = shutil.copytree(family, tmp_path / "family")
    file = folder / "eft/three/config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "awq"}})
    )

    with pytest.raises(ValueError, match="'three' is quantized"):
        configure(folder)


def test_the_window_is_that_of_the_smallest_model(family, caplog):
    with caplog.at_level(logging.WARNING):
        config = configure(family, max_model_len=1024)

    assert config.model_config.max_model_len == 512
    assert "lowered from 1024 to 512" in caplog.text


def test_two_recipes_in_one_process_check_their_own_requests(family):
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.sample.logits_processor import validate_logits_processors_parameters as validate

    small = {name: pair for name, pair in SECTION["behaviors"].items() if name != "two"}
    both, fewer = (
        configure(family, hf_overrides={"eft": SECTION | {"behaviors": behaviors}}).model_config
        for behaviors in (SECTION["behaviors"], small)
    )
    params = SamplingParams(extra_args={"mixture": "two=1"})

    validate(both.logits_processors, params)
    with pytest.raises(VLLMValidationError, match="Unknown behavior 'two'"):
        validate(fewer.logits_processors, params)
    validate(both.logits_processors, params)


def test_other_models_are_left_alone(family, tmp_path):
    folder = shutil.copytree(family, tmp_path / "plain", ignore=shutil.ignore_patterns("eft"))
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = config.pop("eft")["base_architectures"]
    (folder / "config.json").write_text(json.dumps(config))

    configured = configure(folder, max_model_len=1024, enable_lora=True)

    assert configured.model_config.max_model_len == 1024
    assert not configured.model_config.logits_processors


@pytest.mark.parametrize(("revision", "ending"), [(None, ""), ("v1", "@v1")])
def test_small_models_are_read_at_the_revision_of_the_served_model(revision, ending):
    from langchain_eft.vllm.settings import checkpoint_name

    served = SimpleNamespace(model="owner/served", revision=revision)

    assert checkpoint_name(served) == f"owner/served{ending}"
    assert checkpoint_name(served, "eft/one") == f"owner/served/eft/one{ending}"
