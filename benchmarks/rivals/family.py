"""Families of three complete models on disk that every contestant can load, and their prompts."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import HumanMessage
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from benchmarks.rivals.folder import DESCRIPTION, GGUF, read_description
from langchain_eft import EFTChatModel
from langchain_eft.chat.messages import encode
from langchain_eft.diagnostics.bench import default_prompts, numbered, numbered_tools
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint, find_checkpoint
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.presets import load_preset

VOCABULARY = 4096
SPREAD = 3.0
"""Standard deviation of the tiny family's logits: about 45 likely next tokens."""

DISAGREEMENT = 0.4
"""Standard deviation of the difference between the tiny base's logits and the small ones': the base
then accepts draft tokens of the tuned model about as often as the EFT paper reports."""


@dataclass(frozen=True)
class Family:
    """A large base, a small tuned model and its reference, in the folders `base`, `tuned` and `reference`.

    Attributes:
        folder: The folder of the models.
        name: The name in reports.
        behavior: The name of the tuned model in our engine.
        preset: The preset that our engine loads instead of the folders, or None.
        prompts: The benchmark's prompts that it answers, or None for random words.
        temperature: 0 is greedy.
        tokens: The length of an answer.
        end_ids: Tokens that would end an answer; contestants may not draw them.
        requests: The numbers of concurrent requests to measure.
    """

    folder: Path
    name: str
    behavior: str
    preset: str | None
    prompts: str | None
    temperature: float
    tokens: int
    end_ids: tuple[int, ...]
    requests: tuple[int, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe of these models for our engine."""
        preset = load_preset(self.preset) if self.preset else None
        if preset:
            return preset.recipe
        tuned = BehaviorDelta(tuned=str(self.folder / "tuned"), reference=str(self.folder / "reference"))
        return Recipe(base=str(self.folder / "base"), behaviors={self.behavior: tuned})

    def save(self) -> Family:
        """Write the description of the family into its folder."""
        (self.folder / DESCRIPTION).write_text(json.dumps({**asdict(self), "folder": str(self.folder)}))
        return self

    @classmethod
    def load(cls, folder: Path) -> Family:
        """Read the description that `save` wrote."""
        saved = read_description(folder)
        lists = {name: tuple(saved[name]) for name in ("end_ids", "requests")}
        return cls(**{**saved, **lists, "folder": Path(saved["folder"])})


def tiny(folder: Path) -> Family:
    """Make random models of a few megabytes. They measure overhead."""
    torch.manual_seed(0)
    small, large = _config(128, 2), _config(256, 4)
    reference, tuned, base = LlamaForCausalLM(small), LlamaForCausalLM(small), LlamaForCausalLM(large)
    width = small.hidden_size
    with torch.no_grad():
        embeddings, head = torch.randn(VOCABULARY, width), _rows(width, SPREAD)
        _set(reference, embeddings, head)
        tuned.load_state_dict(reference.state_dict())
        for parameter in tuned.model.layers.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        # Half of the base repeats the small models, and the other half differs from them.
        wide = torch.cat([embeddings, torch.randn(VOCABULARY, width)], 1)
        _set(base, wide, torch.cat([head, _rows(width, DISAGREEMENT)], 1))
    for name, model in (("base", base), ("tuned", tuned), ("reference", reference)):
        model.save_pretrained(folder / name)
        _words().save_pretrained(folder / name)
        _for_older_readers(folder / name)
    return Family(folder, "tiny", "tuned", None, None, 1.0, 64, (0,), (1, 16)).save()


def _config(width: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )


def _rows(width: int, deviation: float) -> torch.Tensor:
    """Return output rows whose products with a normalized state have this standard deviation."""
    return deviation / width**0.5 * torch.randn(VOCABULARY, width)


def _set(model: Any, embeddings: torch.Tensor, head: torch.Tensor) -> None:
    model.get_input_embeddings().weight.copy_(embeddings)
    model.get_output_embeddings().weight.copy_(head)


def _words() -> PreTrainedTokenizerFast:
    words = ["<end>", "<unknown>", *(f"w{i}" for i in range(2, VOCABULARY))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))  # noqa: S106
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end>",  # noqa: S106
        pad_token="<end>",  # noqa: S106
        unk_token="<unknown>",  # noqa: S106
    )


def _for_older_readers(folder: Path) -> None:
    """Give the tokenizer's class its name in transformers 4; version 5 reads both names."""
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"})
    )


def smol(folder: Path, prompts: str, tokens: int, requests: tuple[int, ...]) -> Family:
    """The bundled family with its adapter `tools` merged into a copy of the small model."""
    from peft import PeftModel

    from langchain_eft.teaching.reference_model import load_reference

    preset = load_preset("smol")
    base, tools = preset.recipe.base, preset.recipe.behaviors["tools"]
    (folder / "base").symlink_to(fetch_checkpoint(base, lambda _: None), target_is_directory=True)
    reference = load_reference(Path(tools.reference), folder / "base")
    reference.save_pretrained(folder / "reference")
    PeftModel.from_pretrained(reference, tools.adapter).merge_and_unload().save_pretrained(folder / "tuned")
    file = find_checkpoint(base).path
    if file and file.suffix == ".gguf":
        (folder / GGUF).symlink_to(file)
    end = GenerationConfig.from_pretrained(folder / "base").eos_token_id
    name = f"smol, {prompts}"
    return Family(folder, name, "tools", "smol", prompts, 0.0, tokens, (end,), requests).save()


def load_model(folder: Path) -> Any:
    """Load a model with transformers, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


class Prompts:
    """New prompts, the same for every contestant."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._random = random.Random(0)
        self._number = 1000

    def take(self, count: int) -> list[list[int]]:
        """Return the token ids of the next prompts."""
        if self.family.prompts is None:
            lengths = [self._random.randrange(24, 41) for _ in range(count)]
            return [[self._random.randrange(2, VOCABULARY) for _ in range(length)] for length in lengths]
        chosen = next(each for each in default_prompts(EFTChatModel()) if each.name == self.family.prompts)
        tokenizer = AutoTokenizer.from_pretrained(self.family.folder / "base")
        tokenizer.chat_template = self.family.recipe.chat_template.read_text()
        self._number += count
        return [
            list(
                encode(
                    tokenizer,
                    [HumanMessage(numbered(chosen.questions[i % len(chosen.questions)], self._number + i))],
                    tools=numbered_tools(chosen, self._number + i),
                )
            )
            for i in range(count)
        ]
