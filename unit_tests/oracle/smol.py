"""The bundled family in transformers alone."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from langchain_eft import presets
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from unit_tests.oracle.adapters import merged_weights
from unit_tests.oracle.reference import Reference

PRESET = Path(presets.__file__).parent / "smol"


class SmolReference(Reference):
    """Some behaviors of the bundled family, in float32."""

    def __init__(self, *behaviors: str) -> None:
        file = find_checkpoint(presets.load_preset("smol").recipe.base).fetch_file(lambda _: None)
        base = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        ).eval()
        config = LlamaConfig.from_pretrained(PRESET / "reference")
        weights = load_file(PRESET / "reference" / "model.safetensors")
        weights = {name: tensor.float() for name, tensor in weights.items()}
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = base.get_input_embeddings().weight
        small = {"reference": _model(config, weights)}
        for name in behaviors:
            small[name] = _model(config, merged_weights(weights, PRESET / name))
        super().__init__(base, small, config.vocab_size, {base.config.eos_token_id})


def _model(config: LlamaConfig, weights: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A model of these very tensors, without copies of what models share."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(weights, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()
