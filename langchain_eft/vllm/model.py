"""All models of a recipe as one model of vLLM's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.compilation.backends import set_model_tag
from vllm.config import VllmConfig
from vllm.model_executor.models.utils import init_vllm_registered_model
from vllm.platforms import current_platform

from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.models.family import token_mask
from langchain_eft.vllm.loading import load_all, read_adapter, weights_source
from langchain_eft.vllm.output_heads import Head, Heads
from langchain_eft.vllm.section import BASE_NAME, EFTSection
from langchain_eft.vllm.self_check import check_against_plain_forward
from langchain_eft.vllm.settings import small_config
from langchain_eft.vllm.shared_table import table_of
from langchain_eft.vllm.variants import add_variants

_DIGITS = 3
"""Columns that hold a position in base 256: every type of activation holds numbers up to 256 exactly."""


class EFTForCausalLM(nn.Module):
    """The large base and the small models. Each token runs all of them; each row of logits adds them up.

    Every row of hidden states holds the outputs of all models for one token, one after the other, and the
    token's position. So whichever rows a runner selects, drafted ones too, each knows its own position.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:  # noqa: ARG002
        super().__init__()
        model_config = vllm_config.model_config
        self.config = model_config.hf_config
        self.section = EFTSection.of(self.config)
        self._vllm_config = vllm_config
        self._passes = self.section.passes
        self._keys = {name: f"small_{i}" if i else "base" for i, name in enumerate(self._passes)}
        models: dict[str, nn.Module] = {}
        self.secondary_weights = []
        for name, key in self._keys.items():
            if name == BASE_NAME:
                models[key] = init_vllm_registered_model(
                    # No prefix: a quantized base lists its exceptions by their names in the checkpoint.
                    vllm_config,
                    prefix="",
                    architectures=list(self.section.base_architectures),
                )
                continue
            model = self.section.models[name]
            config = vllm_config.with_hf_config(small_config(model, model_config))
            config.model_config.quantization = config.quant_config = None  # those are the base's
            with set_model_tag(f"eft_{key}"):  # else equal classes would share compiled code
                models[key] = init_vllm_registered_model(config, prefix=key)
            self.secondary_weights.append(weights_source(model, model_config, f"{key}."))
        self.models = nn.ModuleDict(models)
        self.table = table_of(vllm_config, torch.device(current_platform.device_type))
        self._heads: Heads | None = None
        self._widths: list[int] = []

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """The base's embeddings; vLLM asks every model for them."""
        embeddings: Tensor = self.models["base"].embed_input_ids(input_ids)  # type: ignore[operator]
        return embeddings

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,  # noqa: ARG002  (pipelines are refused)
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Run every model.

        Args:
            input_ids: [T].
            positions: [T].
            intermediate_tensors: None.
            inputs_embeds: None: every model has an embedding of its own.

        Returns:
            [T, H_1 + ... + H_M + 3]: outputs of all terms, and the position in base 256.
        """
        if inputs_embeds is not None:
            raise ValueError("Emulated fine-tuning reads token ids, not embeddings.")
        outputs = self._outputs(input_ids, positions)
        digits = torch.stack([positions >> 8 * i & 255 for i in range(_DIGITS)], -1)
        return torch.cat([*outputs, digits.to(outputs[0].dtype)], -1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """Log p of each row.

        Args:
            hidden_states: [R, ...], rows of what `forward` returns.

        Returns:
            [R, V] float32.
        """
        if self._heads is None:
            raise RuntimeError("The weights were never loaded.")
        *outputs, digits = torch.split(hidden_states, self._widths, -1)
        positions = torch.stack([digits[:, i].long() << 8 * i for i in range(_DIGITS)]).sum(0)
        return self._heads.log_p([part.contiguous() for part in outputs], self.table.factors(positions))

    def logits_of_terms(self, input_ids: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """[T, V] logits of each term by itself."""
        assert self._heads is not None  # noqa: S101  (the weights are loaded)
        terms = [term for terms in self._passes.values() for term in terms]
        outputs = self._outputs(input_ids, positions)
        return {
            term: self._heads.gathered_logits(i, output)
            for i, (term, output) in enumerate(zip(terms, outputs, strict=True))
        }

    def _outputs(self, input_ids: Tensor, positions: Tensor) -> list[Tensor]:
        """[T, H] of each term."""
        return [
            part
            for name, terms in self._passes.items()
            for part in self.models[self._keys[name]](input_ids, positions).chunk(len(terms))
        ]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load all models, and make every adapter a row of its model's pass."""
        packed = self._vllm_config.quant_config is not None
        loaded = load_all(
            self.models, weights, {key: name for name, key in self._keys.items()}, packed=packed
        )
        heads, device = [], torch.device(current_platform.device_type)
        for name, terms in self._passes.items():
            model = self.models[self._keys[name]]
            heads += [Head(name, model)] * len(terms)
            if terms[1:]:
                small = [self.section.models[term] for term in terms[1:]]
                add_variants(
                    name,
                    model,
                    [read_adapter(each, self._vllm_config.model_config, device) for each in small],
                    self._vllm_config,
                )
        self._set_heads(heads, device)
        return {f"models.{name}" for name in loaded}

    def process_weights_after_loading(self) -> None:
        """Check the models. vLLM calls this when all weights are in place."""
        if self._heads is None:
            raise UnsupportedModelError(
                f"load_format={self._vllm_config.load_config.load_format!r} does not read the small models' "
                "files: leave out --load-format."
            )
        check_against_plain_forward(self, self._vllm_config)

    @staticmethod
    def get_model_state_cls() -> type:
        """Runner V2's hooks."""
        from langchain_eft.vllm.model_state import EFTModelState

        return EFTModelState

    def _set_heads(self, heads: Sequence[Head], device: torch.device) -> None:
        section = self.section
        size = section.vocabulary_size
        vocabulary = token_mask(section.common_ids, size).to(device)
        unscaled = token_mask(section.unscaled, size).to(device) if section.unscaled else None
        self._widths = [*(head.width for head in heads), _DIGITS]
        width = self._vllm_config.model_config.get_vocab_size()
        self._heads = Heads(heads, vocabulary, unscaled, width)
