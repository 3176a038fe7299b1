"""The plain loop on the real weights: full forwards, no cache, adapters merged into copies of the model."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from langchain_eft import presets
from langchain_eft.engine.checkpoints import resolve

PRESET = Path(presets.__file__).parent / "smol"


class SmolReference:
    """Loads everything with transformers alone; shares no code with the engine."""

    def __init__(self, behaviors: list[str]) -> None:
        folder = resolve(presets.load_preset("smol").recipe.base, lambda _: None)
        self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.small = {name: self._small(name) for name in ["", *behaviors]}

    def _small(self, adapter: str) -> torch.nn.Module:
        config = LlamaConfig.from_pretrained(PRESET / "reference")
        weights = load_file(PRESET / "reference" / "model.safetensors")
        weights = {name: tensor.float() for name, tensor in weights.items()}
        weights["model.embed_tokens.weight"] = self.base.get_input_embeddings().weight
        if adapter:
            self._merge(weights, PRESET / adapter)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(
            {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True
        )
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        return model.eval()

    @staticmethod
    def _merge(weights: dict[str, torch.Tensor], folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        for key, down in tensors.items():
            if key.endswith("lora_A.weight"):
                name = key.removeprefix("base_model.model.").replace("lora_A.", "")
                up = tensors[key.replace("lora_A", "lora_B")].float()
                weights[name] = weights[name] + config["lora_alpha"] / config["r"] * (up @ down.float())

    @torch.inference_mode()
    def logprobs(self, ids, mixture, strength=1.0, top_p=1.0, last=1) -> torch.Tensor:
        """log p after each of the last `last` tokens by the definition, [last, V]."""

        def of(model):
            return model(torch.tensor([ids]), use_cache=False, logits_to_keep=last).logits[0].log_softmax(-1)

        large = of(self.base)
        if not mixture and strength == 1 and top_p == 1:
            return large
        small = of(self.small[""])
        mixed = small + sum(weight * (of(self.small[name]) - small) for name, weight in mixture.items())
        upscale = strength * (large - small)
        if top_p == 1:
            return mixed + upscale
        return torch.stack([self._conservative(*rows, top_p) for rows in zip(mixed, upscale, strict=True)])

    @staticmethod
    def _conservative(mixed, upscale, top_p) -> torch.Tensor:
        mixed = mixed.log_softmax(-1)
        ordered, order = mixed.double().sort(descending=True)
        inside = order[: int((ordered.exp().cumsum(-1) < top_p).sum()) + 1]
        kept = torch.zeros_like(upscale)
        kept[inside] = upscale[inside]
        return mixed + kept

    def greedy(self, ids, mixture, steps, strength=1.0, top_p=1.0, end=2) -> list[int]:
        """Greedy answer of at most `steps` tokens, end token included."""
        answer: list[int] = []
        while len(answer) < steps and (not answer or answer[-1] != end):
            answer.append(int(self.logprobs([*ids, *answer], mixture, strength, top_p)[-1].argmax()))
        return answer

    def continuation(self, ids, answer, mixture, strength=1.0, top_p=1.0) -> list[int]:
        """What the greedy loop would say at every position of `answer`, if it had said the rest."""
        rows = self.logprobs([*ids, *answer[:-1]], mixture, strength, top_p, last=len(answer))
        return rows.argmax(-1).tolist()
