"""Traces and diagnoses on the real weights: whose word is whose, and which pairs do not transfer."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_eft import BehaviorDelta, EFTChatModel, EFTTrace
from langchain_eft.diagnostics.diagnose import diagnose
from langchain_eft.engine.registry import close_all
from langchain_eft.presets import load_preset


def test_the_pirates_words_are_the_pirates_and_the_fact_is_the_bases(llm):
    message = llm.invoke("What is the capital of Greece?", mixture={"pirate": 1.0}, trace=True)
    trace = EFTTrace.from_message(message)
    assert trace.text == message.content
    by_token = {token.token.strip(): token for token in trace.tokens}
    assert by_token["Ah"].changed_by == "pirate"
    assert by_token["Ah"].behaviors["pirate"].contribution > 3
    assert by_token["be"].from_base.down.token == " is"
    assert by_token["Athens"].changed_by == "base"
    assert by_token["Athens"].from_small.up.token == " Athens"
    assert trace.summary().behaviors["pirate"].mean > 0.5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> EFTChatModel:
    """The pirate as a full model: in order, with tuned and reference swapped, and beside random layers."""
    close_all()  # two engines at once take more memory than a laptop has
    folder = tmp_path_factory.mktemp("pairs")
    recipe = load_preset("smol").recipe
    delta = recipe.behaviors["pirate"]
    reference, adapter = Path(str(delta.reference)), Path(str(delta.adapter))
    layers = load_file(reference / "model.safetensors")
    update = load_file(adapter / "adapter_model.safetensors")
    tuned = dict(layers)
    for key in update:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("base_model.model.").replace(".lora_A", "")
            tuned[name] = layers[name] + 2 * update[key.replace("lora_A", "lora_B")] @ update[key]
    torch.manual_seed(0)
    random = {
        name: torch.randn_like(w) / 50 if w.ndim > 1 else torch.ones_like(w) for name, w in layers.items()
    }
    for name, weights in (("tuned", tuned), ("random", random)):
        (folder / name).mkdir()
        shutil.copy(reference / "config.json", folder / name)
        save_file(weights, folder / name / "model.safetensors", metadata={"format": "pt"})
    small, pirate, noise = str(reference), str(folder / "tuned"), str(folder / "random")
    return EFTChatModel(
        behaviors={
            "in_order": BehaviorDelta(tuned=pirate, reference=small),
            "swapped": BehaviorDelta(tuned=small, reference=pirate),
            "strangers": BehaviorDelta(tuned=pirate, reference=noise),
        },
        mixture={"in_order": 1.0, "swapped": 1.0, "strangers": 1.0},
        temperature=0,
    )


@pytest.mark.slow
def test_a_good_pair_is_told_from_bad_ones(pairs):
    prompts = ["What is the capital of Japan?", "Tell me about whales."]
    found = diagnose(pairs, prompts, max_tokens=12, draft_lengths=())
    pairs.engine.close()
    assert {diagnosis.behavior: diagnosis.verdict for diagnosis in found} == {
        "in_order": "transfers",
        "swapped": "swapped, or the base is tuned already",
        "strangers": "base and reference disagree",
    }
