"""A quantized base beside small models that are not quantized."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vllm_tests.engines import V2, Task, ask, engine, require_equal
from vllm_tests.oracle import ALLOWED, Mix
from vllm_tests.tasks import MIXES
from vllm_tests.tiny import VOCABULARY

pytestmark = pytest.mark.skipif(V2, reason="one runner is enough for what the model does by itself")

WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": ACTIVATIONS}
    },
    "ignore": ["lm_head"],
}


@pytest.fixture
def quantized(family, tmp_path):
    """The family with linear layers of the base in int8."""
    folder = shutil.copytree(family, tmp_path / "family")
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight = tensors[name]
        scale = weight.abs().amax(1, keepdim=True) / 127
        tensors[name] = (weight / scale).round().to(torch.int8)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": SCHEME}))
    return folder


def test_small_models_stay_as_they_are(oracle, quantized):
    prompt = (1, 50, 60, 70)
    alone = {"mixture": "one=0.5,two=1", "upscale_strength": 0}
    tasks = [Task(prompt, Mix({"one": 0.5, "two": 1.0}, strength=0.0), alone)]
    # `own` is an adapter of the base, so it is quantized too.
    linear = [mix for mix, _ in MIXES if (mix.strength, mix.top_p) == (1, 1) and "own" not in mix.weights]
    requests = [Task(prompt, mix, xargs, 1) for mix, xargs in MIXES if mix in linear]

    with engine(quantized, max_logprobs=VOCABULARY) as llm:
        require_equal(oracle, tasks, ask(llm, tasks))
        answers = ask(llm, requests, logprobs=VOCABULARY)

    rows = [torch.tensor([completion.logprobs[0][i].logprob for i in ALLOWED]) for (completion,) in answers]
    base = rows[linear.index(Mix())]
    unquantized = oracle.log_p(prompt, (), Mix())[ALLOWED]
    assert (base.log_softmax(-1) - unquantized).abs().max() > 1e-3, "the base is quantized"
    for mix, row in zip(linear, rows, strict=True):
        # The formula is linear in the base: what quantization does to it stands in every mixture.
        expected = base + oracle.log_p(prompt, (), mix)[ALLOWED] - unquantized
        torch.testing.assert_close(row.log_softmax(-1), expected.log_softmax(-1), rtol=0, atol=1e-3)
