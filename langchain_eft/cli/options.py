"""The options that commands share: which models to load, how to mix them, and where to run them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from langchain_eft.cli.parse_recipe import ADAPTER, PROMPT, WITHOUT, parse_behaviors
from langchain_eft.engine.recipe.notation import parse_mixture

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel

_option = partial(typer.Option, rich_help_panel="Recipe")

_answer_option = partial(typer.Option, rich_help_panel="Answers")

flag = partial(typer.Option, metavar="")  # typer would show `<bool>`, as if a value were wanted


class _HelpFlag:
    """Shows `--help` as a flag, too."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # of the command
        if option is not None:
            option.metavar = ""
        return option


class Command(_HelpFlag, TyperCommand):
    """A command of `langchain-eft`."""


class Group(_HelpFlag, TyperGroup):
    """`langchain-eft` itself."""


JsonFlag = Annotated[bool, flag("--json", help="Print JSON instead of text.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")]
Temperature = Annotated[float, typer.Option(min=0, help="Randomness; 0 is greedy.")]
SystemOption = Annotated[str | None, typer.Option(help="The system message.")]


@dataclass(frozen=True)
class SourceOptions:
    """Which models to load, and in which mixture, as typed; None is an option left out."""

    mix: Annotated[
        list[str] | None,
        _option(
            metavar="NAME=WEIGHT",
            help="A behavior and its weight; repeat the option to mix several. '--mix none' is the base "
            "model alone. '0..1/32' goes from 0 to 1 over 32 tokens, '1/16:0.3' is 1 for 16 tokens and then "
            "0.3. Left out, the model's usual mixture applies.",
        ),
    ] = None
    model: Annotated[str | None, _option(help="The large base: preset, hub id, folder or .gguf file.")] = None
    behavior: Annotated[
        list[str] | None,
        _option(
            metavar="NAME=SOURCE",
            help="Add a behavior; repeat the option to add several. SOURCE is the folder of a LoRA adapter "
            f"or of a tuned model, the hub id of a tuned model, '{ADAPTER}' and the hub id of an adapter, "
            f"'{PROMPT}' and a system prompt, or '{WITHOUT}' and the name of the tag whose content the "
            "behavior adds.",
        ),
    ] = None
    reference: Annotated[
        str | None,
        _option(
            metavar="SOURCE",
            help="The small model before fine-tuning, for every --behavior. A tuned model needs it; an "
            "adapter names its own, and a preset has one.",
        ),
    ] = None
    chat_template: Annotated[
        str | None, _option(metavar="FILE", help="A Jinja chat template instead of the models' own.")
    ] = None
    base_template: Annotated[
        str | None,
        _option(
            metavar="FILE",
            help="What the base and the references read instead of the chat template: 'transcript', or a "
            "Jinja template of plain text.",
        ),
    ] = None

    def settings(self, **others: Any) -> dict[str, Any]:
        """These options and `others` as fields of the chat model, without those that are None.

        Raises:
            InputError: A behavior cannot be parsed.
            RecipeError: A mixture cannot be parsed.
        """
        fields = {
            **vars(self),
            "mixture": None if self.mix is None else parse_mixture(self.mix),
            "behaviors": parse_behaviors(self.behavior or [], self.reference, self.model) or None,
            **others,
        }
        typed_only = ("mix", "behavior", "reference")
        return {name: field for name, field in fields.items() if field is not None and name not in typed_only}

    def build_model(self, **others: Any) -> EFTChatModel:
        """The chat model with these options and `others`. It checks them and loads no weights.

        Raises:
            InputError: A behavior cannot be parsed.
            RecipeError: A mixture cannot be parsed.
            ValidationError: The chat model rejects a value.
        """
        return build_model(**self.settings(**others))


@dataclass(frozen=True)
class ModelOptions(SourceOptions):
    """The models of a recipe, and where to run them."""

    device: Annotated[str | None, _option(help="Where to run: auto, cpu, cuda, cuda:1 ...")] = None
    dtype: Annotated[str | None, _option(help="Precision: auto, float32, bfloat16 or float16.")] = None


@dataclass(frozen=True)
class RecipeOptions(ModelOptions):
    """The models of a recipe, and how strongly the large one adds to the small ones."""

    upscale_strength: Annotated[
        float | None, _option(help="How much the large model adds; 0 is the small models alone.")
    ] = None
    upscale_top_p: Annotated[
        float | None, _option(help="Below 1, the large model re-weights only likely tokens.")
    ] = None


@dataclass(frozen=True)
class EndpointOptions:
    """The server that decodes, as typed; None is an engine in this process."""

    base_url: Annotated[
        str | None,
        _option(
            metavar="URL",
            help="Let a server decode, such as http://127.0.0.1:8000/v1: 'langchain-eft serve', or vLLM with "
            "an export. Its key is read from the variable LANGCHAIN_EFT_API_KEY.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        _option(
            metavar="SOURCE",
            help="For vLLM on another machine: the exported folder without its weights, or its hub id.",
        ),
    ] = None


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are drawn where a request says nothing else; None leaves the chat model's default."""

    temperature: Annotated[
        float | None, _answer_option(min=0, help="Randomness; 0 is greedy.", show_default="0.7")
    ] = None
    top_p: Annotated[
        float | None, _answer_option(help="Sample from this share of the probability.", show_default="0.9")
    ] = None
    max_tokens: Annotated[
        int | None, _answer_option(min=1, help="Longest answer, in tokens.", show_default="512")
    ] = None
    timeout: Annotated[
        float | None, _answer_option(help="Seconds that an answer may take.", show_default="no limit")
    ] = None


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command receive options as dataclasses.

    typer builds options from a command's signature. This decorator sets a signature in which the fields of a
    dataclass stand in the place of each parameter annotated with that dataclass.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, type] = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    fields = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}

    @wraps(command)
    def run(**typed: Any) -> None:
        for name, group in groups.items():
            typed[name] = group(**{field: typed.pop(field) for field in fields[name]})
        command(**typed)

    options = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in parameters.items()
        for option in (fields[name].values() if name in groups else [parameter])
    ]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def build_model(**settings: Any) -> EFTChatModel:
    """The chat model with these settings. It checks them and loads no weights.

    Raises:
        ValidationError: The chat model rejects a value.
    """
    from langchain_eft.chat_models import EFTChatModel

    return EFTChatModel(**settings)
