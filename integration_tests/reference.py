"""The plain loop on the real weights: full forwards, no cache, adapters merged into copies of the model."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from langchain_eft import presets
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint

PRESET = Path(presets.__file__).parent / "smol"


class SmolReference:
    """Loads everything with transformers alone; shares no code with the engine."""

    def __init__(self, behaviors: Iterable[str] = ()) -> None:
        folder = fetch_checkpoint(presets.load_preset("smol").recipe.base, lambda _: None)
        self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.small: dict[str, torch.nn.Module] = {}
        self.load(behaviors)

    def load(self, behaviors: Iterable[str]) -> None:
        """Keep the small models of these behaviors, and of no others."""
        self.small = {name: self.small[name] for name in ["", *behaviors] if name in self.small}
        for name in ["", *behaviors]:
            if name not in self.small:
                self.small[name] = self._small(name)

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
    def logprobs(self, texts, mixture, strength=1.0, top_p=1.0, last=1) -> torch.Tensor:
        """log p after each of the last `last` tokens of every text, by the definition, [texts, last, V].

        Texts are padded on the right, which causal attention never sees.
        """
        longest = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        ends = torch.tensor([len(text) for text in texts])
        positions = ends[:, None] - last + torch.arange(last)

        def of(model):
            hidden = model.model(ids, use_cache=False).last_hidden_state
            return model.lm_head(
                hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            ).log_softmax(-1)

        large = of(self.base)
        if not mixture and strength == 1 and top_p == 1:
            return large
        small = of(self.small[""])
        mixed = small + sum(weight * (of(self.small[name]) - small) for name, weight in mixture.items())
        upscale = strength * (large - small)
        return mixed + upscale if top_p == 1 else conservative(mixed.log_softmax(-1), upscale, top_p)

    def greedy(self, prompts, mixture, steps, strength=1.0, top_p=1.0, end=2) -> list[list[int]]:
        """Greedy answers of at most `steps` tokens, end token included."""
        answers: list[list[int]] = [[] for _ in prompts]
        for _ in range(steps):
            texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
            following = self.logprobs(texts, mixture, strength, top_p)[:, -1].argmax(-1).tolist()
            for answer, token in zip(answers, following, strict=True):
                if end not in answer:
                    answer.append(token)
        return answers

    def continuation(self, prompt, answer, mixture, strength=1.0, top_p=1.0) -> list[int]:
        """What the greedy loop would say at every position of `answer`, if it had said the rest."""
        rows = self.logprobs([[*prompt, *answer[:-1]]], mixture, strength, top_p, last=len(answer))
        return rows[0].argmax(-1).tolist()


def conservative(mixed: torch.Tensor, upscale: torch.Tensor, top_p: float) -> torch.Tensor:
    """Up-scale only the tokens of the small mixture's nucleus."""
    ordered, order = mixed.double().sort(descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    inside = torch.zeros_like(mixed, dtype=torch.bool).scatter(-1, order, before < top_p)
    return mixed + torch.where(inside, upscale, 0.0)
