"""Families of real shapes with synthetic weights and a chosen acceptance rate.

Models with random weights do not agree on any token. So here the last hidden state is little more than the
last token's embedding. The layers compute everything that real layers would, but add almost nothing. Then the
embedding and output matrices of a model determine its logits. The base's first columns repeat those of the
small models, and its other columns are noise. The scale of the noise sets how often p = L + F - S accepts the
drafts of F.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe

BEHAVIOR = "tuned"
_QUIET = 1e-3
"""The scale of what the layers add to the embeddings."""
_SAMPLE = 64
"""The number of contexts over which an acceptance rate is averaged."""


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int

    def config(self, vocabulary: int, positions: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=positions,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )


@dataclass(frozen=True)
class Scale:
    """Shapes and vocabulary of a family.

    Attributes:
        name: The name in reports.
        large: Shape of the base.
        small: Shape of the tuned model and its reference.
        vocabulary: Number of tokens.
        spread: Standard deviation of the logits.
    """

    name: str
    large: Shape
    small: Shape
    vocabulary: int
    spread: float = 4.0


LLAMA_8B = Shape(4096, 14336, 32, 32, 8)
LLAMA_1B = Shape(2048, 8192, 16, 32, 8)
QWEN_HALF_B = Shape(896, 4864, 24, 14, 2)
SCALES = {
    scale.name: scale
    for scale in (
        Scale("8B + 1B + 1B", LLAMA_8B, LLAMA_1B, 128256),
        Scale("8B + 0.5B + 0.5B", LLAMA_8B, QWEN_HALF_B, 128256),
        Scale("13B + 7B + 7B", Shape(5120, 13824, 40, 40, 40), Shape(4096, 11008, 32, 32, 32), 32000),
    )
}
TINY = Scale("tiny", Shape(64, 128, 3, 4, 2), Shape(32, 64, 2, 4, 2), 512, spread=2.0)
CHECK = Scale("check", Shape(1024, 2048, 6, 16, 4), Shape(512, 1024, 4, 8, 2), 4096, spread=3.0)


@dataclass
class SyntheticFamily:
    """A base, a tuned model and a reference, made when they are needed, on the device that needs them.

    Attributes:
        scale: Their shapes.
        folder: The folder of their configurations and tokenizer.
        device: The device that they are made on.
        dtype: The precision of their weights.
        positions: The length of the longest sequence.
    """

    scale: Scale
    folder: Path
    device: torch.device
    dtype: torch.dtype
    positions: int
    _noise: float = 1.0
    _heads: list[Tensor] = field(default_factory=list)

    def save(self) -> SyntheticFamily:
        """Write everything except the weights."""
        words = _words(self.scale.vocabulary)
        for name, shape in self._shapes().items():
            shape.config(self.scale.vocabulary, self.positions).save_pretrained(self.folder / name)
            words.save_pretrained(self.folder / name)
        return self

    @property
    def recipe(self) -> Recipe:
        """The recipe for our engine, which loads the family with `load`."""
        tuned = BehaviorDelta(tuned=str(self.folder / "tuned"), reference=str(self.folder / "reference"))
        return Recipe(base=str(self.folder / "base"), behaviors={BEHAVIOR: tuned})

    def load(self, path: str, *_: Any) -> nn.Module:
        """Replace our engine's `load_module`."""
        return self.module(Path(path).name, ATTENTION)

    @torch.no_grad()
    def module(self, name: str, attention: str) -> Any:
        """Make the model `base`, `tuned` or `reference`, the same every time.

        Args:
            name: The name of the model.
            attention: The implementation of its attention.
        """
        torch.manual_seed(sum(name.encode()))
        config = self._shapes()[name].config(self.scale.vocabulary, self.positions)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=self.dtype, attn_implementation=attention)
        for module_name, module in model.named_modules():
            if module_name.endswith(("o_proj", "down_proj")):
                module.weight *= _QUIET
        embeddings, head = self._tables(name)
        model.get_input_embeddings().weight.copy_(embeddings)
        model.get_output_embeddings().weight.copy_(head)
        if name == "base":
            self._heads.append(model.get_output_embeddings().weight)
        return model.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def set_acceptance(self, rate: float) -> float:
        """Set the acceptance rate of every base that was made, and return the calculated rate.

        Scaling the output matrix in place loses less than bfloat16 rounds anyway.
        """
        low, high = 0.01, 50.0
        for _ in range(24):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self._acceptance(middle) > rate else (low, middle)
        width = self.scale.small.hidden
        for head in self._heads:
            head[:, width:] *= low / self._noise
        self._noise = low
        return self._acceptance(low)

    def forget(self) -> None:
        """Drop the references to the models that were made."""
        self._heads.clear()

    def _shapes(self) -> dict[str, Shape]:
        return {"base": self.scale.large, "tuned": self.scale.small, "reference": self.scale.small}

    def _random(self, seed: int, width: int, deviation: float) -> Tensor:
        """Return [V, width] normal numbers, the same for the same seed."""
        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (self.scale.vocabulary, width)
        return deviation * torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    def _tables(self, name: str) -> tuple[Tensor, Tensor]:
        """Return [V, hidden] embeddings and output matrix. Token 0 ends an answer and is never likely."""
        width, rest = self.scale.small.hidden, self.scale.large.hidden - self.scale.small.hidden
        embeddings = self._random(1, width, 1.0)
        head = self._random(2, width, self.scale.spread / width**0.5)
        if name == "tuned":
            head += self._random(3, width, 0.02 * self.scale.spread / width**0.5)
        if name == "base":
            embeddings = torch.cat([embeddings, self._random(4, rest, 1.0)], 1)
            head = torch.cat([head, self._random(5, rest, self._noise / rest**0.5)], 1)
        head[0] = 0
        return embeddings, head

    def _acceptance(self, noise: float) -> float:
        """Return the mean overlap of p and q over a few last tokens, for a deviation of the noise."""
        if not hasattr(self, "_rows"):
            width, rest = self.scale.small.hidden, self.scale.large.hidden - self.scale.small.hidden
            shuffled = torch.randperm(self.scale.vocabulary, generator=torch.Generator().manual_seed(0))
            last_tokens = shuffled[:_SAMPLE].to(self.device)
            tuned, noise_head = self._tables("tuned")[1], self._random(5, rest, 1 / rest**0.5)
            small = self._random(1, width, 1.0)[last_tokens] @ tuned.t()
            self._rows = small.float(), (self._random(4, rest, 1.0)[last_tokens] @ noise_head.t()).float()
        small, difference = self._rows
        p, q = (small + noise * difference).softmax(-1), small.softmax(-1)
        return float(torch.minimum(p, q).sum(-1).mean())


def random_prompts(scale: Scale, count: int, length: int, seed: int = 0) -> list[list[int]]:
    """Make prompts of random words."""
    generator = torch.Generator().manual_seed(seed + 1000 * length)
    return torch.randint(2, scale.vocabulary, (count, length), generator=generator).tolist()


def _words(count: int) -> PreTrainedTokenizerFast:
    words: Sequence[str] = ["<end>", "<unknown>", *(f"w{i}" for i in range(2, count))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))  # noqa: S106
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end>",  # noqa: S106
        unk_token="<unknown>",  # noqa: S106
        chat_template=template,
    )
