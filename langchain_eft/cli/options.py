"""Options that commands share, and how what is typed becomes settings of the chat model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from langchain_eft.cli.console import InputError
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp, Weight
from langchain_eft.engine.request import Speculation
from langchain_eft.presets import preset_names

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel

NOTHING = "none"
"""What `--mix`, `/mix` and `/system` call the empty mixture and the absent system message."""

ADAPTER = "adapter:"
"""What `--behavior` puts before the hub id of an adapter; of a folder it is plain what it holds."""

PROMPT, WITHOUT = "prompt:", "without:"
"""What `--behavior` puts before a system prompt, and before a tag."""

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_RAMP = re.compile(rf"(?P<start>{_NUMBER})\.\.(?P<end>{_NUMBER})/(?P<tokens>\d+)")
_FIRST_TOKENS = re.compile(rf"(?P<weight>{_NUMBER})/(?P<tokens>\d+)(?::(?P<then>{_NUMBER}))?")

Model = Annotated[str | None, typer.Option(help="The large base: a preset, hub id, folder or .gguf file.")]
Mix = Annotated[
    list[str] | None,
    typer.Option(
        "--mix",
        metavar="NAME=WEIGHT",
        help="A behaviour and its weight; repeat it to mix several. '0..1/32' goes from 0 to 1 over 32 "
        "tokens, '1/16:0.3' is 1 for 16 tokens and then 0.3. '--mix none' is the base model alone. Left out, "
        "it is the model's usual mixture.",
    ),
]
Behavior = Annotated[
    list[str] | None,
    typer.Option(
        "--behavior",
        metavar="NAME=SOURCE",
        help="Add a behaviour: the folder of a LoRA adapter or of a tuned model, the hub id of a tuned "
        f"model, '{ADAPTER}' and the hub id of an adapter, '{PROMPT}' and a system prompt, or '{WITHOUT}' "
        "and the tag around what one side does not read. Repeat it to add several.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="The small model before fine-tuning, for every --behavior. Tuned models need it; an adapter "
        "knows its own, and a preset has one.",
    ),
]
ChatTemplate = Annotated[
    str | None, typer.Option(metavar="FILE", help="A Jinja chat template instead of the models' own.")
]
BaseTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What base and references read instead of the chat template: 'transcript', or a Jinja template "
        "of plain text.",
    ),
]
UpscaleStrength = Annotated[
    float | None, typer.Option(help="How much the large model adds; 0 is the small models alone.")
]
UpscaleTopP = Annotated[
    float | None, typer.Option(help="Below 1, the large model re-weights only likely tokens.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]


def parse_mixture(entries: Iterable[str]) -> dict[str, Weight]:
    """`["pirate=0.7", "concise=1..0/32"]` as a mixture; `["none"]` is the empty one, the base model alone.

    Raises:
        InputError: An entry of another form, or a behaviour given twice.
    """
    entries = list(entries)
    if entries == [NOTHING]:
        return {}
    mixture: dict[str, Weight] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        if name in mixture:
            raise InputError(f"{name!r} is in the mixture twice: give every behaviour one weight.")
        mixture[name] = _weight(entry, weight)
    return mixture


def _weight(entry: str, weight: str) -> Weight:
    with suppress(ValueError):
        return float(weight)
    if found := _RAMP.fullmatch(weight):
        return _schedule(entry, Ramp, **found.groupdict())
    if found := _FIRST_TOKENS.fullmatch(weight):
        return _schedule(entry, FirstTokens, **found.groupdict("0"))
    raise InputError(
        f"{entry!r} is no part of a mixture: write NAME=WEIGHT, for example pirate=0.7, pirate=0..1/32 (from "
        f"0 to 1 over 32 tokens) or pirate=1/16:0.3 (1 for 16 tokens, then 0.3), or {NOTHING!r} alone for "
        "the base model by itself."
    )


def _schedule(entry: str, kind: type[Ramp] | type[FirstTokens], **fields: str) -> Weight:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        from langchain_eft.errors import describe  # imports LangChain

        raise InputError(f"{entry!r} is no part of a mixture: {describe(error)}.") from error


def _spelled(weight: Weight) -> str:
    match weight:
        case Ramp():
            return f"{weight.start:g}..{weight.end:g}/{weight.tokens}"
        case FirstTokens():
            return f"{weight.weight:g}/{weight.tokens}:{weight.then:g}"
    return f"{weight:g}"


def parse_behaviors(
    entries: Iterable[str], reference: str | None = None, model: str | None = None
) -> dict[str, BehaviorDelta]:
    """`["house=./house-lora", "chat=owner/tuned-model"]` as behaviours.

    Args:
        entries: Behaviours as they are typed.
        reference: The small model before fine-tuning, for all of them.
        model: The base that was typed, if any; a preset brings a reference.

    Raises:
        InputError: An entry of another form, a behaviour given twice, a reference that is missing or has
            nothing to refer to.
    """
    behaviors: dict[str, BehaviorDelta] = {}
    for entry in entries:
        name, _, source = entry.partition("=")
        if not (name and source):
            raise InputError(f"{entry!r} is no behaviour: write NAME=SOURCE, for example house=./house-lora.")
        if name in behaviors:
            raise InputError(f"The behaviour {name!r} is given twice: give every behaviour one source.")
        behaviors[name] = _behavior(name, source, reference)
        if behaviors[name].tuned and not reference and model is not None and model not in preset_names():
            raise InputError(
                f"The behaviour {entry!r} is a tuned model: name the small model before fine-tuning with "
                "--reference SOURCE."
            )
    if reference and not behaviors:
        raise InputError(
            f"--reference {reference!r} has no behaviour to refer to: add one with --behavior NAME=SOURCE."
        )
    return behaviors


def _behavior(name: str, source: str, reference: str | None) -> BehaviorDelta:
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
            f"The source {source!r} of behaviour {name!r} is neither a local folder or .gguf file nor a hub "
            f"id: write OWNER/NAME for a tuned model on the hub, {ADAPTER}OWNER/NAME for an adapter."
        )
    if hub_id != source:
        return BehaviorDelta(adapter=hub_id, reference=reference)
    return BehaviorDelta(tuned=source, reference=reference)


def parse_speculation(text: str) -> Speculation:
    """A draft length as it is typed.

    Raises:
        InputError: Neither `auto` nor `off` nor a number that can be drafted.
    """
    length: TypeAdapter[Speculation] = TypeAdapter(Speculation)
    with suppress(ValidationError):
        return length.validate_python(text)
    raise InputError(f"--speculation {text!r} is no draft length: write auto, off or a number from 0 to 16.")


def read_prompts(file: Path) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        InputError: A file that cannot be read, or is empty.
    """
    try:
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--prompts {str(file)!r} cannot be read ({error}): give a text file, one prompt a line."
        ) from error
    if not prompts:
        raise InputError(f"--prompts {str(file)!r} holds no prompt: write one a line.")
    return prompts


def recipe_settings(
    model: str | None,
    mix: list[str] | None,
    behavior: list[str] | None,
    reference: str | None,
    **others: Any,
) -> dict[str, Any]:
    """The options of a recipe, and others, as the chat model's settings; those left out stay out.

    Raises:
        InputError: A value that cannot be understood.
    """
    settings = {
        "model": model,
        "mixture": None if mix is None else parse_mixture(mix),
        "behaviors": parse_behaviors(behavior or [], reference, model) or None,
        **others,
    }
    return {name: value for name, value in settings.items() if value is not None}


def format_mixture(mixture: Mapping[str, Any]) -> str:
    """A mixture as it is typed, for people to read."""
    read = Mixture.of(mixture).weights
    weights = " ".join(f"{name}={_spelled(read[name])}" for name in mixture)
    return weights or f"{NOTHING} (the base model alone)"


def build_model(**settings: Any) -> EFTChatModel:
    """The chat model with these settings; checks them, loads nothing."""
    from langchain_eft.chat_models import EFTChatModel

    return EFTChatModel(**settings)
