"""LangChain's model profile: what a model can do, known before anything is loaded."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from langchain_core.language_models.model_profile import ModelProfile

from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.recipe.behaviors import ModelSource, Recipe


def model_profile(name: str, recipe: Recipe, max_model_len: int | None) -> ModelProfile:
    """The profile of a recipe. `max_input_tokens` is left out where no local configuration states it.

    Args:
        name: The base model, as the caller named it.
        recipe: The models that decode.
        max_model_len: The engine's own limit on prompt and answer, in tokens.
    """
    profile = ModelProfile(
        name=name,
        open_weights=True,
        text_inputs=True,
        image_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        pdf_inputs=False,
        text_outputs=True,
        tool_calling=True,
        tool_choice=True,
        tool_call_streaming=True,
        structured_output=True,
        temperature=True,
    )
    window = _configured_window(recipe, max_model_len)
    return profile if window is None else {**profile, "max_input_tokens": window}


def _configured_window(recipe: Recipe, max_model_len: int | None) -> int | None:
    """Tokens that prompt and answer may have together, as far as local configurations say."""
    deltas = recipe.behaviors.values()
    sources = [recipe.base, *(source for delta in deltas for source in (delta.tuned, delta.reference))]
    limits = [max_model_len or None, *map(_source_window, sources)]
    return min((limit for limit in limits if limit is not None), default=None)


@lru_cache(maxsize=64)
def _source_window(source: ModelSource | None) -> int | None:
    """The window that the configuration of a local folder allows."""
    config = Path(source).expanduser() / "config.json" if isinstance(source, str) else None
    if config is None or not config.is_file():
        return None
    stated = SimpleNamespace(**json.loads(config.read_text()))
    return context_window(stated) if hasattr(stated, "max_position_embeddings") else None
