"""Recipes as typed on the command line: behaviors, draft lengths and prompt files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from langchain_eft.cli.console import InputError
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.notation import NOTHING, format_mixture
from langchain_eft.engine.request import Speculation
from langchain_eft.presets import preset_names

ADAPTER = "adapter:"
"""Prefix of an adapter's hub id in `--behavior`. A folder needs none: its files show what it holds."""

PROMPT, WITHOUT = "prompt:", "without:"
"""Prefixes of a system prompt and of a tag's name in `--behavior`."""


def parse_behaviors(
    entries: Iterable[str], reference: str | None = None, model: str | None = None
) -> dict[str, BehaviorDelta]:
    """Parse behaviors such as `["house=./house-lora", "chat=owner/tuned-model"]`.

    Args:
        entries: One NAME=SOURCE for each behavior.
        reference: The small model before fine-tuning, for all of them.
        model: The base model as typed, or None for the default preset. A preset brings a reference.

    Raises:
        InputError: An entry has another form, a behavior occurs twice, a tuned model has no reference, or a
            reference comes without a behavior.
    """
    behaviors: dict[str, BehaviorDelta] = {}
    for entry in entries:
        name, _, source = entry.partition("=")
        if not (name and source):
            raise InputError(
                f"{entry!r} is not a behavior: write NAME=SOURCE, for example house=./house-lora."
            )
        if name in behaviors:
            raise InputError(f"The behavior {name!r} is given twice: give every behavior one source.")
        behaviors[name] = _parse_source(name, source, reference)
        if behaviors[name].tuned and not reference and model is not None and model not in preset_names():
            raise InputError(
                f"The behavior {entry!r} is a tuned model: name the small model before fine-tuning with "
                "--reference SOURCE."
            )
    if reference and not behaviors:
        raise InputError(
            f"--reference {reference!r} is given without a behavior: add one with --behavior NAME=SOURCE."
        )
    return behaviors


def _parse_source(name: str, source: str, reference: str | None) -> BehaviorDelta:
    if source.startswith(PROMPT):
        return BehaviorDelta(prompt=source.removeprefix(PROMPT), reference=reference)
    if source.startswith(WITHOUT):
        return BehaviorDelta(without=source.removeprefix(WITHOUT), reference=reference)
    hub_id, path = source.removeprefix(ADAPTER), Path(source).expanduser()
    if path.is_dir() and (path / "adapter_config.json").is_file():
        return BehaviorDelta(adapter=str(path), reference=reference)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return BehaviorDelta(tuned=str(path), reference=reference)
    if HubModel.parse(hub_id) is None:
        raise InputError(
            f"The source {source!r} of behavior {name!r} is neither a local folder or .gguf file nor a hub "
            f"id: write OWNER/NAME for a tuned model on the hub, {ADAPTER}OWNER/NAME for an adapter."
        )
    if hub_id != source:
        return BehaviorDelta(adapter=hub_id, reference=reference)
    return BehaviorDelta(tuned=source, reference=reference)


def parse_speculation(text: str) -> Speculation:
    """Parse a draft length: `auto`, `off` or a number of tokens.

    Raises:
        InputError: The text is none of these, or the number is out of range.
    """
    length: TypeAdapter[Speculation] = TypeAdapter(Speculation)
    with suppress(ValidationError):
        return length.validate_python(text)
    raise InputError(
        f"--speculation {text!r} is not a draft length: write auto, off or a number from 0 to 16."
    )


def read_prompts(file: Path) -> list[str]:
    """Read prompts from a text file: every line that is not blank.

    Raises:
        InputError: The file cannot be read, or all its lines are blank.
    """
    try:
        # Not `splitlines`: a prompt may hold other line breaks, such as U+2028.
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--prompts {str(file)!r} cannot be read ({error}): give a text file, one prompt a line."
        ) from error
    if not prompts:
        raise InputError(f"--prompts {str(file)!r} holds no prompt: write one prompt a line.")
    return prompts


def describe_mixture(mixture: Mapping[str, Any]) -> str:
    """A mixture in the notation of `--mix`, and what it means where it is empty."""
    return format_mixture(mixture) if mixture else f"{NOTHING} (the base model alone)"
