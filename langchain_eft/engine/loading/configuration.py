"""The configuration of a model, read without its weights. The model need not have been fetched.

A configuration can ask for code: of its own, or a kernel that transformers would fetch. None of it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
)

from langchain_eft.engine.error_text import shortened
from langchain_eft.engine.errors import CheckpointNotFoundError, EngineError, UnsupportedModelError
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.gguf import is_gguf, read_header

_MOST_LAYERS = 1000
"""More than any model has. Building layers takes milliseconds each, even without weights."""


def read_config(checkpoint: Checkpoint) -> Any:
    """The configuration of a model, without what names code to fetch.

    Raises:
        CheckpointNotFoundError: The configuration cannot be found.
        UnsupportedModelError: The model needs code of its own, or has too many layers.
    """
    try:
        with refusing_foreign_code(checkpoint.name):
            config = _read(checkpoint)
            _require_few_layers(checkpoint.name, config)
    except EngineError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise CheckpointNotFoundError(
            f"The configuration of {checkpoint.name!r} cannot be read ({shortened(str(error))}): "
            f"{checkpoint.remedy}."
        ) from error
    config._attn_implementation = config._experts_implementation = None  # may name a kernel on the hub
    vars(config).pop("transformers_weights", None)  # may name a file that is no safetensors
    return config


def model_class(config: Any) -> Any:
    """The auto class that builds a model: of text, or of images and text if its family has no other."""
    if (
        type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    ):
        return AutoModelForCausalLM
    return AutoModelForImageTextToText


def _require_few_layers(name: str, config: Any) -> None:
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > _MOST_LAYERS:
        raise UnsupportedModelError(
            f"{name!r} has num_hidden_layers={layers} in its config.json, and at most {_MOST_LAYERS} are "
            "supported: fetch the model again, or use another one."
        )


def _read(checkpoint: Checkpoint) -> Any:
    path, hub = checkpoint.path, checkpoint.hub
    if path is None:
        assert hub is not None  # noqa: S101  (a checkpoint has a path or a hub model)
        return AutoConfig.from_pretrained(
            hub.repo, revision=hub.revision, subfolder=hub.path, trust_remote_code=False
        )
    if is_gguf(path):
        read_header(path)
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    return AutoConfig.from_pretrained(path, trust_remote_code=False)


@contextmanager
def refusing_foreign_code(name: str) -> Iterator[None]:
    """Report that transformers would run code that comes with a model.

    Raises:
        UnsupportedModelError: It would.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UnsupportedModelError(
            f"{name!r} needs code that comes with it, and such code never runs here: choose a model of a "
            "family that transformers itself supports."
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
