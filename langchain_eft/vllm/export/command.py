"""The line that starts vLLM."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.vllm.attention_heads import Heads, refuse_undividable
from langchain_eft.vllm.export.exported_models import ExportedModels, config_json
from langchain_eft.vllm.section import BASE_NAME

_DRAFTED = 3
"""Tokens that the draft model proposes in each step."""


@dataclass(frozen=True)
class ServeOptions:
    """How vLLM is to use the machine.

    Attributes:
        tensor_parallel: GPUs that share every layer.
        quantization: vLLM's name of a format for the base's weights, or None.
    """

    tensor_parallel: int = 1
    quantization: str | None = None

    def check(self, models: ExportedModels) -> None:
        """Refuse options that do not fit the models of a recipe.

        Raises:
            RecipeError: Heads that the GPUs cannot share, or a base that must not be quantized (again).
        """
        configs = (read_config(checkpoint) for checkpoint in models.checkpoints.unique)
        texts = [config.get_text_config() for config in configs]
        names = [checkpoint.name for checkpoint in models.checkpoints.unique]
        refuse_undividable(dict(zip(names, map(Heads.of, texts), strict=True)), self.tensor_parallel)
        if self.quantization is None:
            return
        if "quantization_config" in config_json(models.base.folder):
            raise RecipeError(
                f"The base {models.base.checkpoint.name!r} is quantized already, which vLLM finds by itself: "
                f"leave quantization={self.quantization!r} out."
            )
        for name, behavior in models.behaviors.items():
            if BASE_NAME in (behavior.tuned, behavior.reference):
                raise RecipeError(
                    f"quantization={self.quantization!r} would quantize the base, which is also a small "
                    f"model of behavior {name!r}: the behavior's weight would amplify the rounding error. "
                    "Leave it out, or use another base."
                )

    def arguments(self) -> list[str]:
        """The arguments of `vllm serve` that say the same."""
        ranks = ["--tensor-parallel-size", str(self.tensor_parallel)] if self.tensor_parallel > 1 else []
        return [*ranks, *(["--quantization", self.quantization] if self.quantization else [])]


def serve_line(folder: Path, options: ServeOptions, draft: Path | None) -> str:
    """The line that starts vLLM, for a shell.

    Args:
        folder: The served folder.
        options: How to use the machine.
        draft: Folder of the draft model, or None.
    """
    arguments = ["vllm", "serve", str(folder), "--served-model-name", folder.name, *options.arguments()]
    # Clients send grammars in the dialect of this backend.
    arguments += ["--structured-outputs-config", json.dumps({"backend": "guidance"})]
    if draft is None:
        return shlex.join(arguments)
    settings = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": _DRAFTED}
    # The other runner has no mixtures where it speculates.
    return (
        f"VLLM_USE_V2_MODEL_RUNNER=1 {shlex.join([*arguments, '--speculative-config', json.dumps(settings)])}"
    )
