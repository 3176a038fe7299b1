"""The bundled family in transformers alone: full forward passes and merged adapters."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from langchain_eft import presets
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from unit_tests.oracle import formula_log_p, merged_weights

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
            weights = merged_weights(weights, PRESET / adapter)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(
            {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True
        )
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        return model.eval()

    @torch.inference_mode()
    def logprobs(self, texts, mixture, strength=1.0, top_p=1.0, last=1) -> torch.Tensor:
        """log p after each of the last `last` tokens of every text, by the definition, [texts, last, V].

        Texts are padded on the right. Causal attention does not read the padding.
        """
        longest = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        ends = torch.tensor([len(text) for text in texts])
        positions = ends[:, None] - last + torch.arange(last)

        def log_probs(model):
            hidden = model.model(ids, use_cache=False).last_hidden_state
            return model.lm_head(
                hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            ).log_softmax(-1)

        return self._mixed(log_probs, mixture, strength, top_p)

    @torch.inference_mode()
    def answer_logprobs(self, prompt, answers, mixture) -> torch.Tensor:
        """log p before each token of every answer to one prompt, [answers, longest answer, V].

        The prompt is computed once, with transformers' own cache.
        """
        longest = max(map(len, answers))
        ids = torch.tensor([[prompt[-1], *answer[:-1], *[0] * (longest - len(answer))] for answer in answers])

        def log_probs(model):
            cache = model(torch.tensor([prompt[:-1]]), use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(len(answers))
            return model(ids, past_key_values=cache).logits.log_softmax(-1)

        return self._mixed(log_probs, mixture)

    def _mixed(
        self, log_probs: Callable[[torch.nn.Module], torch.Tensor], mixture, strength=1.0, top_p=1.0
    ) -> torch.Tensor:
        """log p, by the definition, from what `log_probs` says of each model."""
        large = log_probs(self.base)
        if not mixture and strength == 1 and top_p == 1:
            return large
        tuned = {name: log_probs(self.small[name]) for name in mixture}
        return formula_log_p(large, log_probs(self.small[""]), tuned, mixture, strength, top_p)

    def greedy(self, prompts, mixture, steps, strength=1.0, top_p=1.0, end=2) -> list[list[int]]:
        """Greedy answers of at most `steps` tokens, end token included."""
        answers: list[list[int]] = [[] for _ in prompts]
        for _ in range(steps):
            texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
            next_tokens = self.logprobs(texts, mixture, strength, top_p)[:, -1].argmax(-1).tolist()
            for answer, token in zip(answers, next_tokens, strict=True):
                if end not in answer:
                    answer.append(token)
        return answers

    def continuation(self, prompt, answer, mixture, strength=1.0, top_p=1.0) -> list[int]:
        """The most probable token at each position of `answer`, given the answer's tokens before it."""
        rows = self.logprobs([[*prompt, *answer[:-1]]], mixture, strength, top_p, last=len(answer))
        return rows[0].argmax(-1).tolist()
