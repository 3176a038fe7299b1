"""What vLLM is told before it loads anything, and what it is refused."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.vllm.attention_heads import Heads, refuse_undividable
from langchain_eft.vllm.mixtures import request_formula
from langchain_eft.vllm.section import BASE_NAME, EFTSection, SmallModel

logger = logging.getLogger(__name__)

HOOK = "EFTRequests"
"""The class that checks requests, and on runner V1 follows them through the batch."""

SECTIONS: dict[str, EFTSection] = {}
"""The sections that this process has read, by the name of the `HOOK` that checks their requests."""

_DRAFTS = frozenset({"draft_model", "ngram", "ngram_gpu", "suffix"})
"""Ways to speculate that read nothing of the target model but its tokens."""


class EFTSettings(VerifyAndUpdateConfig):  # type: ignore[misc]
    """vLLM calls this for a model of our architecture, in every process that makes a configuration."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Check the section and vLLM's own settings.

        Raises:
            RecipeError: The section or a setting that emulated fine-tuning cannot serve.
        """
        model = vllm_config.model_config
        section = EFTSection.of(model.hf_config)
        request_formula(section, None)
        _refuse(vllm_config)
        _check_models(section, model, vllm_config.parallel_config.tensor_parallel_size)
        if model.max_model_len > section.window:
            logger.warning(
                "max_model_len is lowered from %d to %d tokens, the context window of the smallest model.",
                model.max_model_len,
                section.window,
            )
            model.max_model_len = section.window
        # vLLM tells a class that checks requests nothing but the request, so each section has its own.
        name = f"{HOOK}_{sha256(section.model_dump_json().encode()).hexdigest()[:16]}"
        SECTIONS[name] = section
        processors, hook = model.logits_processors or [], f"langchain_eft.vllm.request_hook:{name}"
        if hook not in processors:
            model.logits_processors = [*processors, hook]


def small_config(model: SmallModel, served: ModelConfig) -> Any:
    """The configuration of a whole small model.

    Raises:
        EngineError: It cannot be found.
    """
    return read_config(find_checkpoint(checkpoint_name(served, model.subfolder)))


def checkpoint_name(served: ModelConfig, subfolder: str = "") -> str:
    """The files of a served model, or of a small model in it, as our loader names them."""
    name = f"{served.model}/{subfolder}" if subfolder else served.model
    return f"{name}@{served.revision}" if served.revision else name


def _refuse(config: VllmConfig) -> None:
    parallel, speculative = config.parallel_config, config.speculative_config
    refusals = {
        "EFT cannot be pipelined, for each model has layers of its own: set --pipeline-parallel-size 1 and "
        "raise --tensor-parallel-size.": parallel.pipeline_parallel_size > 1,
        "EFT was never tried with context parallelism: set --decode-context-parallel-size 1 and "
        "--prefill-context-parallel-size 1.": parallel.decode_context_parallel_size > 1
        or parallel.prefill_context_parallel_size > 1,
        "EFT does not take LoRA adapters of vLLM's: leave out --enable-lora, and name adapters as behaviors "
        "of the recipe.": config.lora_config is not None,
        "EFT reads token ids, for every model has an embedding of its own: leave out "
        "--enable-prompt-embeds.": config.model_config.enable_prompt_embeds,
        "EFT runs no code that comes with a model: leave out --trust-remote-code, and choose models of "
        "families that vLLM itself supports.": config.model_config.trust_remote_code,
        "EFT generates text: leave out --runner pooling.": config.model_config.runner_type == "pooling",
        "vLLM's runner V1 drops logits processors when it speculates, so requests would have no mixture: set "
        "VLLM_USE_V2_MODEL_RUNNER=1.": speculative is not None and not config.use_v2_model_runner,
    }
    for sentence, refused in refusals.items():
        if refused:
            raise RecipeError(sentence)
    if speculative is not None and speculative.method not in _DRAFTS:
        raise RecipeError(
            f"The speculative method {speculative.method!r} reads hidden states of the base, which do not "
            'foretell the mixture: use "draft_model" with one of the small tuned models.'
        )


def _check_models(section: EFTSection, model_config: ModelConfig, ranks: int) -> None:
    """Refuse models that the ranks cannot share, and quantized small models."""
    configs = {BASE_NAME: model_config.hf_config} | {
        name: small_config(section.models[name], model_config) for name in section.passes if name != BASE_NAME
    }
    refuse_undividable({name: Heads.of(c.get_text_config()) for name, c in configs.items()}, ranks)
    for name, config in configs.items():
        if name != BASE_NAME and getattr(config, "quantization_config", None):
            raise RecipeError(
                f"The small model {name!r} is quantized, and only the base may be: give its "
                "unquantized weights."
            )
