"""A quantized base beside small models that are not quantized."""

from __future__ import annotations

import json
import shutil
from statistics import mean

import pytest
import torch
from safetensors.torch import load_file, save_file

from vllm_tests.engines import V2, Task, ask, engine, require_equal
from vllm_tests.oracle import Mix
from vllm_tests.tasks import some_tasks

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
    alone = {"mixture": "one=0.5,two=1", "upscale_strength": 0}
    tasks = [Task((1, 50, 60, 70), Mix({"one": 0.5, "two": 1.0}, strength=0.0), alone)]

    with engine(quantized) as llm:
        require_equal(oracle, tasks, ask(llm, tasks))
        mixed = [task for task in some_tasks() if "bare" not in task.mix.weights]
        answers = ask(llm, mixed)

    for task, (completion,) in zip(mixed, answers, strict=True):
        expected = oracle.log_p(task.prompt, (), task.mix)
        reported = completion.logprobs[0]
        differences = [abs(expected[i].item() - value.logprob) for i, value in reported.items()]
        assert 1e-3 < mean(differences) < 0.5, "int8 changes the base a little"
