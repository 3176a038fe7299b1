"""The check at a first start: what vLLM computes, against plain forward passes of the same files.

It finds weights that vLLM read into other places, adapters whose layers it does not run as we think, and
models whose class in vLLM differs from the one in transformers. Attention over blocks of keys and values is
vLLM's own and not part of the check: causal attention over the few positions takes its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
import vllm
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank, get_tp_group
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.attention import Attention

from langchain_eft.engine.cache_folder import cache_folder
from langchain_eft.engine.errors import RecipeError, UnsupportedModelError
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from langchain_eft.engine.loading.weights import load_module
from langchain_eft.engine.models.lora import load_adapter
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.self_check import TOLERANCE, agree, plain_logits, relative_error
from langchain_eft.vllm.section import BASE_NAME, EFTSection
from langchain_eft.vllm.settings import checkpoint_name

logger = logging.getLogger(__name__)

_POSITIONS = 12


@torch.inference_mode()
def check_against_plain_forward(model: Any, config: VllmConfig) -> None:
    """Compare the logits of every model at a few positions. What was checked once is not checked again.

    Args:
        model: The loaded `EFTForCausalLM`.
        config: vLLM's configuration.

    Raises:
        UnsupportedModelError: The logits of a model differ.
    """
    section, device = model.section, next(model.parameters()).device
    leads = get_tensor_model_parallel_rank() == 0
    plain = _PlainModels(section, config) if leads else None
    # Every process has to run the models, for each has a part of them.
    if not get_tp_group().broadcast_object(plain is not None and not plain.record.exists(), src=0):
        return
    allowed = sorted(section.common_ids)
    ids = torch.tensor([allowed[7919 * i % len(allowed)] for i in range(1, _POSITIONS + 1)])
    with _plain_attention(model), set_forward_context(None, config, num_tokens=_POSITIONS):
        computed = model.logits_of_terms(ids.to(device), torch.arange(_POSITIONS, device=device))
    if plain is not None:
        plain.compare(ids, {term: logits.cpu() for term, logits in computed.items()})


class _PlainModels:
    """The models of a section as transformers computes them, on the CPU.

    Attributes:
        record: The file that says that these files were checked with this release of vLLM.
    """

    def __init__(self, section: EFTSection, config: VllmConfig) -> None:
        model_config = config.model_config
        self._section, self._dtype = section, model_config.dtype
        self._base_is_packed = config.quant_config is not None
        sources = {BASE_NAME: checkpoint_name(model_config)} | {
            name: checkpoint_name(model_config, model.subfolder) for name, model in section.models.items()
        }
        self._folders = {
            name: Path(fetch_checkpoint(source, lambda _: None)) for name, source in sources.items()
        }
        files = {
            str(file): (file.stat().st_size, file.stat().st_mtime_ns)
            for folder in self._folders.values()
            for file in sorted(folder.glob("*"))
            if file.is_file()
        }
        settings = [vllm.__version__, str(self._dtype), config.parallel_config.tensor_parallel_size]
        checked = json.dumps([section.model_dump(mode="json"), files, settings], sort_keys=True)
        name = hashlib.sha256(checked.encode()).hexdigest()
        self.record = cache_folder() / "vllm-checked" / name

    def compare(self, ids: Tensor, computed: dict[str, Tensor]) -> None:
        """Compare the logits of every term that can be compared.

        Args:
            ids: [T] token ids.
            computed: [T, V] of each term.

        Raises:
            UnsupportedModelError: They differ.
        """
        base: nn.Module | None = None
        skipped = []
        for name, terms in self._section.passes.items():
            if reason := self._obstacle(name):
                skipped.append(f"{name} ({reason})")
                continue
            try:
                module = self._load(name, base)
            except RecipeError:
                if name == BASE_NAME or base is not None:
                    raise
                skipped.append(f"{name} (it has the embeddings of the base, which was not compared)")
                continue
            base = module if name == BASE_NAME else base
            for term in terms:
                with self._adapted(module, term if term != name else None):
                    expected = plain_logits(module, ids[None]).float()
                for row, plain in zip(computed[term], expected, strict=True):
                    self._require_agreement(term, row, plain[: len(row)])
            del module
        if skipped:
            logger.warning("Not compared with a plain forward pass: %s.", ", ".join(skipped))
            return
        logger.info("All models agree with plain forward passes.")
        self._keep_record()

    def _load(self, name: str, base: nn.Module | None) -> nn.Module:
        """A whole model, with the base's embeddings if it was saved without.

        Raises:
            RecipeError: It was, and the base is None.
        """
        placement = Placement(_CPU, _CPU, self._dtype)
        return load_module(str(self._folders[name]), placement, embeddings_from=base).to(self._dtype)

    def _obstacle(self, name: str) -> str | None:
        """Why a model cannot be compared, or None."""
        if name == BASE_NAME and self._base_is_packed:
            return "it is quantized"
        size = sum(file.stat().st_size for file in self._folders[name].glob("*.safetensors"))
        free = psutil.virtual_memory().available
        return None if 1.5 * size < free else f"its {size / 1e9:.0f} GB need more memory than is free"

    @contextmanager
    def _adapted(self, module: nn.Module, adapter: str | None) -> Iterator[None]:
        """A model with the low-rank updates of an adapter."""
        updates = load_adapter(self._folders[adapter], self._dtype, _CPU).updates if adapter else {}
        hooks = [
            module.get_submodule(layer).register_forward_hook(
                lambda _, args, output, update=update: output + args[0] @ update.down.t() @ update.up.t()
            )
            for layer, update in updates.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _require_agreement(self, term: str, computed: Tensor, expected: Tensor) -> None:
        if not agree(computed, expected, self._dtype):
            raise UnsupportedModelError(
                f"The logits of the model {term!r} in vLLM differ from those of a plain forward pass by "
                f"{relative_error(computed, expected):.2g} standard deviations, where "
                f"{TOLERANCE[self._dtype]:g} are allowed for {self._dtype}: choose another model, or serve "
                "this recipe with `langchain-eft serve`."
            )

    def _keep_record(self) -> None:
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.record.touch()
        except OSError as error:
            logger.warning(
                "The next start checks all models again: %s cannot be written (%s).", self.record, error
            )


_CPU = torch.device("cpu")


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """All attention layers attend causally over the tokens of the pass, and no compiled code runs."""
    compiled: list[Any] = [
        module for module in model.modules() if getattr(module, "do_not_compile", True) is False
    ]
    usual = Attention.forward
    Attention.forward = _causal
    for module in compiled:
        module.do_not_compile = True
    try:
        yield
    finally:
        Attention.forward = usual
        for module in compiled:
            module.do_not_compile = False


def _causal(layer: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """[T, heads * size], attention of T tokens over those before them."""
    heads = [tensor.view(len(tensor), -1, layer.head_size).transpose(0, 1) for tensor in (query, key, value)]
    query, key, value = (each.float() for each in heads)
    groups = len(query) // len(key)
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = query @ key.transpose(1, 2) * layer.impl.scale
    if cap := getattr(layer.impl, "logits_soft_cap", None):
        scores = cap * torch.tanh(scores / cap)
    later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)
    output: Tensor = (weights @ value).transpose(0, 1).flatten(1).to(layer.dtype)
    return output
