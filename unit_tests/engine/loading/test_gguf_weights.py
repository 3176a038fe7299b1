"""Models in the blocks of their GGUF file, against transformers over the same numbers in float32."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.gguf_weights import count_gguf_weights, load_gguf_module, stays_in_blocks
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.self_check import plain_logits
from unit_tests.tiny import GGUF_NAMES

SIZES = {
    "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**{**SIZES, "num_attention_heads": 2, "num_key_value_heads": 1}),
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True),
}
IDS = torch.tensor([[5, 80, 3, 3, 41, 7]])


def permuted(weight, heads):
    """As llama.cpp stores queries and keys of Llama: the pairs of a rotation side by side."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def written(config, kinds, folder):
    """A GGUF file whose matrices have these kinds in turn, and a model with the file's numbers."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(parameter.data, 1.0, 0.1)
    writer = gguf.GGUFWriter(folder / "model.gguf", config.model_type)
    for i, (name, parameter) in enumerate(model.named_parameters()):
        kind = kinds[i % len(kinds)] if parameter.dim() == 2 else Kind.F32
        stored = quantize(parameter.detach().numpy(), kind)
        parameter.data = torch.from_numpy(dequantize(stored, kind).astype(np.float32))
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        if config.model_type == "llama" and name.split(".")[-2] in heads:
            stored = permuted(stored, heads[name.split(".")[-2]])
        for part, short in ({**GGUF_NAMES, "q_norm": "attn_q_norm", "k_norm": "attn_k_norm"}).items():
            name = name.replace(part, short)
        name = name.replace("lm_head", "output").replace("self_attn.", "")
        writer.add_tensor(name, stored, raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    config.save_pretrained(folder)
    return Checkpoint("model", folder, gguf=folder / "model.gguf"), model


@pytest.mark.parametrize(
    "kinds", [[Kind.Q4_1, Kind.Q8_0, Kind.Q5_0], [Kind.F16, Kind.BF16, Kind.F32]], ids=["blocks", "numbers"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_file_s_numbers(family, kinds, tmp_path):
    checkpoint, expected = written(FAMILIES[family], kinds, tmp_path)
    assert stays_in_blocks(checkpoint.gguf)
    module = load_gguf_module(checkpoint, lambda _: None)
    packed = [each for each in module.buffers() if isinstance(each, PackedWeight)]
    assert {part.format.name for each in packed for part in each.parts} == (
        {"four_bits", "eight_bits"} if Kind.Q4_1 in kinds else {"float16", "bfloat16", "float32"}
    )
    with torch.inference_mode():
        logits = expected(IDS).logits[0]
        torch.testing.assert_close(
            plain_logits(module, IDS), logits, rtol=0, atol=2e-5 * float(logits.abs().max())
        )


def test_memory_is_known_before_the_weights_are_read(tmp_path):
    checkpoint, _ = written(FAMILIES["qwen2"], [Kind.Q4_1, Kind.Q8_0], tmp_path)
    module = load_gguf_module(checkpoint, lambda _: None)
    weights = {id(weight): weight.nbytes for weight in (*module.parameters(), *module.buffers())}
    rotary = sum(each.nbytes for name, each in module.named_buffers() if "inv_freq" in name)
    counted = count_gguf_weights(checkpoint.gguf)
    on_cpu = Placement.of(EngineConfig(device="cpu"))
    assert counted.nbytes(on_cpu) == sum(weights.values()) - rotary
    assert counted.nbytes(replace(on_cpu, dtype=torch.bfloat16)) == 2 * counted.linear
    read = count_gguf_weights(checkpoint.gguf, read=True).nbytes(on_cpu)
    assert read == counted.nbytes(on_cpu) - module.get_input_embeddings().weight.nbytes


def test_other_families_and_files_are_converted(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gpt2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    written(FAMILIES["qwen3"], [Kind.Q4_1, Kind.MXFP4], tmp_path)
    assert not stays_in_blocks(tmp_path / "model.gguf")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not stays_in_blocks(tmp_path / "other.gguf")
    assert not stays_in_blocks(tmp_path / "model.safetensors")
    assert not stays_in_blocks(tmp_path)
