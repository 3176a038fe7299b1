"""What the plugin uses of vLLM, which promises none of it, and whether an installed vLLM has it.

Source files are read, not imported: vLLM registers plugins in each of its processes, before it has chosen a
platform. That a name is there says nothing of what it does; see docs/vllm.md for the releases that were run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HOOK = ("update_state", "is_argmax_invariant", "apply", "validate_params")

USED: dict[str, tuple[str, ...]] = {
    "compilation.backends": ("set_model_tag(tag)",),
    "config.model": ("ModelConfig.enable_prompt_embeds", "ModelConfig.logits_processors"),
    "config.parallel": (
        "ParallelConfig.decode_context_parallel_size",
        "ParallelConfig.prefill_context_parallel_size",
    ),
    "config.vllm": ("VllmConfig.use_v2_model_runner", "VllmConfig.with_hf_config(hf_config)"),
    "distributed.communication_op": ("tensor_model_parallel_all_gather(input_)",),
    "distributed.parallel_state": ("get_tensor_model_parallel_rank()", "get_tp_group()"),
    "forward_context": ("set_forward_context(attn_metadata, vllm_config, num_tokens)",),
    "model_executor.layers.attention.attention": ("Attention.forward(query, key, value)",),
    "model_executor.layers.attention_layer_base": ("AttentionLayerBase",),
    "model_executor.layers.linear": (
        "LinearBase",
        "LinearMethodBase.apply(layer, x, bias)",
        "MergedColumnParallelLinear.weight_loader_v2(param, loaded_weight, loaded_shard_id)",
        "QKVParallelLinear.weight_loader_v2(param, loaded_weight, loaded_shard_id)",
        "ReplicatedLinear",
        "RowParallelLinear.weight_loader_v2(param, loaded_weight)",
        "UnquantizedLinearMethod",
    ),
    "model_executor.layers.logits_processor": (
        "LogitsProcessor.forward(lm_head, hidden_states, skip_gather)",
    ),
    "model_executor.layers.rotary_embedding.base": ("RotaryEmbeddingBase",),
    "model_executor.layers.vocab_parallel_embedding": (
        "ParallelLMHead",
        "UnquantizedEmbeddingMethod",
        "VocabParallelEmbedding",
    ),
    "model_executor.model_loader.default_loader": ("DefaultModelLoader.Source",),
    "model_executor.models.config": (
        "MODELS_CONFIG_MAP",
        "VerifyAndUpdateConfig.verify_and_update_config(vllm_config)",
    ),
    "model_executor.models.utils": (
        "AutoWeightsLoader.load_weights(weights)",
        "init_vllm_registered_model(vllm_config, prefix, architectures)",
    ),
    "model_executor.parameter": ("ModelWeightParameter",),
    "sampling_params": ("SamplingParams.extra_args", "SamplingParams.stop_token_ids"),
    "v1.sample.logits_processor.interface": (
        "BatchUpdate",
        "MoveDirectionality",
        *(f"LogitsProcessor.{name}" for name in _HOOK),
    ),
    "v1.worker.gpu.input_batch": ("InputBatch.idx_mapping_np", "InputBatch.expanded_idx_mapping"),
    "v1.worker.gpu.model_states.default": (
        "DefaultModelState.add_request(req_index, new_req_data)",
        "DefaultModelState.apply_staged_writes()",
        "DefaultModelState.prepare_inputs(input_batch, req_states)",
        "DefaultModelState.prepare_dummy_inputs(num_reqs, num_tokens)",
    ),
    "v1.worker.gpu.sample.logits_processor.interface": (
        "LogitsProcessor.add_request",
        "LogitsProcessor.apply",
    ),
}
"""Names by module, and the parameters that we give or take."""


def missing_interfaces(package: Path) -> list[str]:
    """What a vLLM lacks of `USED`.

    Args:
        package: The folder of the package `vllm`.
    """
    return [
        f"vllm.{module}.{name}"
        for module, names in USED.items()
        for found in [_definitions(package.joinpath(*module.split(".")).with_suffix(".py"))]
        for name in names
        if not _has(found, name)
    ]


def _has(found: dict[str, set[str] | None], use: str) -> bool:
    name, call, parameters = use.rstrip(")").partition("(")
    if name not in found:
        return False
    wanted = set(filter(None, parameters.split(", "))) if call else set()
    known = found[name]
    return known is None or wanted <= known


def _definitions(file: Path) -> dict[str, set[str] | None]:
    """What a file defines, with the parameters of functions; other names have None."""
    with suppress(OSError, SyntaxError):
        return dict(_names(ast.parse(file.read_bytes()).body))
    return {}


def _names(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, set[str] | None]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            yield prefix + node.name, None if arguments.kwarg else {each.arg for each in every}
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name, None
            yield from _names(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((prefix + target.id, None) for target in targets if isinstance(target, ast.Name))
