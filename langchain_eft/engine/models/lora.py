"""Reading LoRA adapters in PEFT's file format."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema
from safetensors.torch import load_file
from torch import Tensor

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, reading
from langchain_eft.engine.models.finite import all_finite

_PREFIX = "base_model.model."

_PLAIN_LORA: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "lora_bias": (False,), "use_dora": (False,),
    "use_qalora": (False,), "fan_in_fan_out": (False,), "modules_to_save": ([],),
    "layer_replication": ([],), "target_parameters": ([],),
    "trainable_token_indices": ([], {}),
}  # fmt: skip
"""Values that the settings of a plain low-rank update of linear layers may have, beside None."""


_LONGEST_PATTERN = 1000
"""Characters of a regular expression, and of a name that one matches. Tools write some hundreds."""

_PATIENCE = 5.0
"""Seconds that all patterns of an adapter may take. Thousands of ordinary ones take less than one."""

_SAVE_AGAIN = "fetch the adapter again, or save it again with `save_pretrained`"


class _LoraSettings(BaseModel):
    """Types and PEFT's defaults of the settings that are read here."""

    model_config = ConfigDict(strict=True)

    r: PositiveInt = 8
    lora_alpha: FiniteFloat = 8
    rank_pattern: dict[str, PositiveInt] | None = None
    alpha_pattern: dict[str, FiniteFloat] | None = None
    target_modules: str | list[str] | None = None
    use_rslora: bool | None = None
    base_model_name_or_path: str | None = None
    alora_invocation_tokens: list[NonNegativeInt] | None = None


@dataclass(frozen=True)
class LoraUpdate:
    """The update of one linear layer: `up @ (down @ x)` is added to its output. `up` includes the scale."""

    down: Tensor  # [r, in]
    up: Tensor  # [out, r]


@dataclass(frozen=True)
class LoraAdapter:
    """A behavior as low-rank updates (Hu et al. 2021)."""

    source: str  # its folder
    # the update of each linear layer, by its name in the model's `named_modules()`
    updates: dict[str, LoraUpdate]
    negated: bool = False  # whether the scale of some layer is negative
    # tokens from whose last occurrence in a prompt it acts; empty if it acts everywhere
    invocation: tuple[int, ...] = ()


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`, with PEFT's defaults.

    Raises:
        CheckpointNotFoundError: The folder holds no PEFT adapter, or its file is damaged.
        RecipeError: The adapter is not a plain low-rank update, or a setting has a wrong type.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no adapter_config.json: give the folder that "
            "`PeftModel.save_pretrained` wrote."
        )
    with reading(path, _SAVE_AGAIN):
        config: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    for name, allowed in _PLAIN_LORA.items():
        if config.get(name) not in (*allowed, None):
            raise RecipeError(
                f"The adapter {str(folder)!r} has {name}={config[name]!r}, which is not a plain LoRA: "
                "merge it into its model and use `tuned=` instead."
            )
    initialization = str(config.get("init_lora_weights")).lower()
    if initialization.startswith(("pissa", "olora", "corda", "loftq")):
        raise RecipeError(
            f"The adapter {str(folder)!r} has init_lora_weights={initialization!r}, which also changes the "
            "model's weights: convert it with `path_initial_model_for_weight_conversion`, or merge it into "
            "its model and use `tuned=`."
        )
    try:
        settings = _LoraSettings.model_validate(config)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        setting = str(fault["loc"][0])
        raise RecipeError(
            f"The adapter {str(folder)!r} has {setting}={config.get(setting)!r:.200} ({fault['msg']}): "
            f"{_SAVE_AGAIN}."
        ) from error
    return {**settings.model_dump(), **config}


def load_adapter(folder: Path, dtype: torch.dtype, device: torch.device) -> LoraAdapter:
    """Read a PEFT LoRA folder.

    Raises:
        CheckpointNotFoundError: The folder holds no adapter, or its files are damaged.
        RecipeError: The adapter is not a plain LoRA of linear layers, or its settings contradict its tensors.
    """
    config = read_adapter_config(folder)
    weights_file = folder / "adapter_model.safetensors"
    if not weights_file.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no adapter_model.safetensors: save the adapter with "
            "safe_serialization=True."
        )
    with reading(weights_file, _SAVE_AGAIN):
        tensors = load_file(weights_file)
    downs = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    unexpected = set(tensors) - {f"{d}.lora_{m}.weight" for d in downs for m in "AB"}
    if any(".lora_embedding_" in name for name in unexpected):
        raise RecipeError(
            f"The adapter {str(folder)!r} updates an embedding, but all behaviors share the embeddings here: "
            "merge it into its model and use `tuned=` instead."
        )
    if unexpected or not downs:
        raise RecipeError(
            f"The adapter {str(folder)!r} holds tensors that are not LoRA pairs of linear layers "
            f"({sorted(unexpected)[:3]}): merge it into its model and use `tuned=` instead."
        )
    names = [key.removeprefix(_PREFIX) for key in sorted(downs)]
    try:
        deadline = time.monotonic() + _PATIENCE
        ranks = _by_pattern(config.get("rank_pattern"), names, config["r"], deadline)
        alphas = _by_pattern(config.get("alpha_pattern"), names, config["lora_alpha"], deadline)
        targets = _targets(config.get("target_modules"), names, deadline)
    except _PatternError as error:
        raise RecipeError(
            f"The adapter {str(folder)!r} has a pattern in its adapter_config.json that is not supported "
            f"({error}): name the layers instead, target_modules as a list, and save it again."
        ) from error
    updates, negated = {}, False
    for key, name in zip(sorted(downs), names, strict=True):
        down, up = (tensors[f"{key}.lora_{m}.weight"] for m in "AB")
        rank, scale = ranks[name], _scale(ranks[name], alphas[name], rank_stabilized=config.get("use_rslora"))
        if name not in targets:
            raise RecipeError(
                f"The adapter {str(folder)!r} updates the layer {name!r:.200}, which is not among its "
                f"target_modules={config['target_modules']!r:.200}: {_SAVE_AGAIN}."
            )
        if down.dim() != 2 or up.dim() != 2 or {down.shape[0], up.shape[1]} != {rank}:
            raise RecipeError(
                f"The adapter {str(folder)!r} has tensors of shape {[*down.shape]} and {[*up.shape]} for the "
                f"layer {name!r}, but rank {rank} by its settings: {_SAVE_AGAIN}."
            )
        updates[name] = LoraUpdate(down.to(device, dtype), (up.float() * scale).to(device, dtype))
        negated = negated or not scale >= 0  # true for NaN too
        if not all(map(all_finite, (updates[name].down, updates[name].up))):
            raise CheckpointNotFoundError(
                f"{str(weights_file)!r} holds NaN or infinite values in {dtype} for the layer {name!r}: "
                f"{_SAVE_AGAIN}."
            )
    return LoraAdapter(str(folder), updates, negated, tuple(config["alora_invocation_tokens"] or ()))


def _scale(rank: int, alpha: float, *, rank_stabilized: bool | None) -> float:
    """Alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA (Kalajdzievski 2023)."""
    return float(alpha) / (rank**0.5 if rank_stabilized else rank)


def _by_pattern(
    patterns: dict[str, Any] | None, names: Sequence[str], default: Any, deadline: float
) -> dict[str, Any]:
    """Each name's value by the first pattern that matches, as in PEFT: all of it, or its end after a dot."""
    values: dict[str, Any] = {}
    for pattern, value in (patterns or {}).items():
        for name in _matching(rf"(.*\.)?({pattern})", names, deadline):
            values.setdefault(name, value)
    return {name: values.get(name, default) for name in names}


def _targets(targets: str | list[str] | None, names: Sequence[str], deadline: float) -> set[str]:
    """The names that `target_modules` names, as in PEFT: by a regular expression, or by ends of names."""
    if targets is None or targets == "all-linear":
        return set(names)
    if isinstance(targets, str):
        return set(_matching(targets, names, deadline))
    named = set(targets)
    return {name for name in names if len(name) <= _LONGEST_PATTERN and not named.isdisjoint(_ends(name))}


def _ends(name: str) -> list[str]:
    """A whole name, and what follows each of its dots."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


class _PatternError(Exception):
    """A regular expression cannot be matched in a bounded time."""


def _matching(pattern: str, names: Sequence[str], deadline: float) -> Iterator[str]:
    """The names that a regular expression matches as a whole.

    pydantic matches in linear time. Python's `re` may take for ever.

    Raises:
        _PatternError: The pattern is damaged, too large, or needs look-around or back-references; or the
            deadline is over.
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise _PatternError(f"{pattern[:80]!r}... has {len(pattern)} characters")
    try:
        matcher = SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})\z"))
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise _PatternError(f"{pattern[:80]!r}: {reason}") from error
    for name in names:
        if time.monotonic() > deadline:
            raise _PatternError(f"all together take longer than {_PATIENCE:.0f} s")
        if len(name) <= _LONGEST_PATTERN and matcher.isinstance_python(name):
            yield name
