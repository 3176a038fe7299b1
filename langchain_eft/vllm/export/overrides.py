"""A recipe as arguments of `vllm serve`, without a folder of its own: the models stay where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langchain_eft.engine.loading.tokenizers import read_tokenizer
from langchain_eft.vllm.export.exported_models import NamedModel
from langchain_eft.vllm.section import ARCHITECTURE, SECTION, EFTSection


def in_place(_: str, model: NamedModel) -> dict[str, Any]:
    """Where a model is, as fields of `SmallModel`: a part of the hub, or a folder of this machine."""
    hub = model.checkpoint.hub
    if hub is None or hub.is_gguf:
        return {"source": str(model.folder)}
    return {"source": hub.repo, "subfolder": hub.path, "revision": hub.revision}


def base_arguments(base: NamedModel) -> list[str]:
    """The arguments that name the base."""
    hub = base.checkpoint.hub
    if hub is None or hub.path:  # vLLM knows whole repositories only
        return [str(base.folder)]
    return [hub.repo, *(["--revision", hub.revision] if hub.revision else [])]


def section_arguments(section: EFTSection) -> list[str]:
    """The arguments that replace what the base's config.json says."""
    overrides = {"architectures": [ARCHITECTURE], SECTION: section.model_dump(mode="json")}
    return ["--hf-overrides", json.dumps(overrides)]


def template_arguments(file: Path | None, template: str | None, base: NamedModel) -> list[str]:
    """The arguments that name the chat template, if it is not the base's own.

    Args:
        file: The recipe's file with the template, or None.
        template: The template's text.
        base: The base.
    """
    if template is None or template == read_tokenizer(base.folder).chat_template:
        return []
    return ["--chat-template", template if file is None else str(file.absolute())]
