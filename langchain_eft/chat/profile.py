"""LangChain's model profile: what a model can do, known before anything is loaded."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from jinja2.sandbox import ImmutableSandboxedEnvironment
from langchain_core.language_models.model_profile import ModelProfile

from langchain_eft.chat.reasoning_effort import effort_levels
from langchain_eft.chat.tool_formats import reasons
from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.recipe.behaviors import ModelSource, Recipe


def model_profile(name: str, window: int | None, template: str | None) -> ModelProfile:
    """The profile of a model. What is not known is left out.

    Args:
        name: The model, as the caller named it.
        window: Tokens that prompt and answer may have together, or None.
        template: The chat template, or None.
    """
    profile = ModelProfile(
        name=name,
        open_weights=True,
        text_inputs=True,
        image_inputs=False,
        image_url_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        pdf_inputs=False,
        image_tool_message=False,
        pdf_tool_message=False,
        text_outputs=True,
        image_outputs=False,
        audio_outputs=False,
        video_outputs=False,
        tool_calling=True,
        tool_choice=True,
        tool_call_streaming=True,
        mid_conversation_tools=False,
        structured_output=True,
        attachment=False,
        temperature=True,
    )
    if window is not None:  # prompt and answer share it
        profile |= {"max_input_tokens": window, "max_output_tokens": window - 1}
    if template is not None:
        profile["reasoning_output"] = reasons(template)
        if levels := effort_levels(template):
            profile["reasoning_effort_levels"] = list(levels)
        profile["mid_conversation_system_messages"] = _keeps_place(template)
    return profile


def configured_window(recipe: Recipe, max_model_len: int | None) -> int | None:
    """Tokens that prompt and answer may have together, as far as local configurations say.

    Args:
        recipe: The models that decode.
        max_model_len: The engine's own limit, or None.
    """
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


def configured_template(recipe: Recipe) -> str | None:
    """The chat template, if local files say which one it is. The order is that of loading."""
    if recipe.chat_template is not None:
        return _text(recipe.chat_template)
    tuned = (delta.adapter or delta.tuned for delta in recipe.behaviors.values() if delta.has_weights)
    for source in (*tuned, recipe.base):
        folder = Path(source).expanduser() if isinstance(source, str) else None
        if folder is None or not folder.is_dir():
            return None
        if template := _folder_template(folder):
            return template
    return None


@lru_cache(maxsize=64)
def _folder_template(folder: Path) -> str | None:
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return _text(file)
    template = json.loads(config.read_text()).get("chat_template") if config.is_file() else None
    return template if isinstance(template, str) else None


@lru_cache(maxsize=64)
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def _keeps_place(template: str) -> bool:
    """Whether a chat template renders a later system message as such, and where it stands."""
    roles = ["user", "assistant", "system", "user"]
    turns = [{"role": role, "content": f"#{i}"} for i, role in enumerate(roles)]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        text = environment.from_string(template).render(messages=turns, add_generation_prompt=True)
    except Exception:  # noqa: BLE001 - templates may raise anything
        return False
    places = [text.find(turn["content"]) for turn in turns]
    return -1 not in places and places == sorted(places)
