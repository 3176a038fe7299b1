"""The configuration of a model, read without its weights. The model need not have been fetched."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, GenerationConfig

from langchain_eft.engine.errors import CheckpointNotFoundError, EngineError
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.gguf import check_gguf


def read_config(checkpoint: Checkpoint) -> Any:
    """The configuration of a model.

    Raises:
        CheckpointNotFoundError: The configuration cannot be found.
    """
    try:
        if checkpoint.path is None:
            hub = checkpoint.hub
            assert hub is not None  # noqa: S101  (a checkpoint has a path or a hub model)
            return AutoConfig.from_pretrained(hub.repo, revision=hub.revision, subfolder=hub.path)
        if checkpoint.path.suffix == ".gguf" and checkpoint.path.is_file():
            check_gguf(checkpoint.path)
            return AutoConfig.from_pretrained(checkpoint.path.parent, gguf_file=checkpoint.path.name)
        return AutoConfig.from_pretrained(checkpoint.path)
    except EngineError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise CheckpointNotFoundError(
            f"The configuration of {checkpoint.name!r} cannot be read ({type(error).__name__}): "
            f"{checkpoint.remedy}."
        ) from error


def read_stop_ids(checkpoint: Checkpoint) -> frozenset[int]:
    """Ids that end a text by the generation config of a model in a local folder, or by its configuration.

    Raises:
        CheckpointNotFoundError: The configuration cannot be found.
    """
    try:
        settings = GenerationConfig.from_pretrained(checkpoint.folder)
    except OSError:  # a model without generation_config.json
        settings = GenerationConfig.from_model_config(read_config(checkpoint))
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in ids if i is not None)
