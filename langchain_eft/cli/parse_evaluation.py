"""Evaluations as typed on the command line: tasks, systems, sweeps, judges and axes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from langchain_eft.cli.console import InputError
from langchain_eft.cli.parse_recipe import describe_mixture
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.recipe.notation import parse_mixture

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.evaluation import Rubric, System, Task

SELF = "self"
"""The word for the evaluated model itself in `--judge`."""

TUNED = "tuned:"
"""Prefix of a behavior's name in `--system`, for its tuned model alone."""

NUDGED = "nudged:"
"""Prefix of a behavior's name in `--system`, for its tuned model where the base is unsure."""

AxisName: TypeAlias = tuple[str, str | None]
"""A task and one of its metrics, or None for its first metric."""

_SETTINGS = ("upscale_strength", "upscale_top_p")
"""Settings that `--sweep` can vary, besides the weights of behaviors."""


def parse_task(text: str, limit: int | None, seed: int, max_tokens: int | None) -> Task:
    """Parse the name of a built-in task or of a JSONL file.

    Args:
        text: The name.
        limit: How many of its cases to draw; None is all.
        seed: Seed of the draw.
        max_tokens: Longest answer in tokens; None is the task's own limit.

    Raises:
        EvaluationError: There is no such task or file.
    """
    from langchain_eft.evaluation import BUILT_IN, load_task

    task = BUILT_IN[text]() if text in BUILT_IN else load_task(text)
    return replace(task, max_tokens=max_tokens or task.max_tokens).limited(limit, seed)


def parse_system(llm: EFTChatModel, text: str) -> System:
    """Parse the name of a system: the base, a small model, a mixture of `llm`, or another chat model.

    Raises:
        InputError: The name has none of these forms.
        EvaluationError: LangChain cannot build the chat model of that name.
        RecipeError: A mixture cannot be parsed.
    """
    from langchain_eft.evaluation import System, base_alone, mixed, nudged, reference_alone, tuned_alone
    from langchain_eft.evaluation.hosted import hosted

    if text == "base":
        return base_alone(llm)
    if text == "reference":
        return reference_alone(llm)
    if text == "eft":
        return System(f"eft {describe_mixture(dict(llm.active_mixture.weights))}", llm)
    if text.startswith(TUNED):
        return tuned_alone(llm, text.removeprefix(TUNED), text)
    if text.startswith(NUDGED):
        return nudged(llm, text.removeprefix(NUDGED), name=text)
    if "=" in text:
        return mixed(llm, parse_mixture(text.split(",")), text)
    if ":" in text:
        return System(text, hosted(text, "--system"))
    raise InputError(
        f"--system {text!r} is unknown: write base, reference, eft (the usual mixture), {TUNED}NAME, "
        f"{NUDGED}NAME, a mixture such as tools=1,concise=0.5 or tools=1/below0.4, or PROVIDER:MODEL."
    )


def parse_sweep(llm: EFTChatModel, text: str) -> list[System]:
    """Parse a sweep such as `harmless=0,0.5,1` or `upscale_strength=0,1,2` into one system for each value.

    Raises:
        InputError: The text has another form, or names neither a behavior nor a setting.
    """
    from langchain_eft.evaluation import strength_sweep, top_p_sweep, weight_sweep

    name, _, listed = text.partition("=")
    values: list[float] = []
    with suppress(ValueError):
        values = [float(value) for value in listed.split(",")]
    names = (*llm.recipe.behaviors, *_SETTINGS)
    if not values or name not in names:
        raise InputError(
            f"--sweep {text!r} is not a sweep: write NAME=VALUE,VALUE,... with one of {quoted_names(names)}."
        )
    if name == "upscale_strength":
        return strength_sweep(llm, values)
    return top_p_sweep(llm, values) if name == "upscale_top_p" else weight_sweep(llm, name, values)


def parse_judges(llm: EFTChatModel, names: Sequence[str]) -> dict[str, BaseChatModel]:
    """The chat models that judge, by the name that was typed.

    Raises:
        EvaluationError: LangChain cannot build one of them.
    """
    from langchain_eft.evaluation.hosted import hosted

    return {name: llm if name == SELF else hosted(name, "--judge") for name in names}


def parse_rubrics(names: Sequence[str]) -> list[Rubric]:
    """The rubrics with these names, or all rubrics if there are none.

    Raises:
        InputError: A rubric is unknown.
    """
    from langchain_eft.evaluation import RUBRICS

    unknown = set(names) - set(RUBRICS)
    if unknown:
        raise InputError(f"--rubric {quoted_names(unknown)} is unknown: choose from {quoted_names(RUBRICS)}.")
    return [RUBRICS[name] for name in names or RUBRICS]


def parse_axes(text: str, tasks: Sequence[Task]) -> tuple[AxisName, AxisName]:
    """Parse two axes such as `harmful,benign` or `capitals:length,benign`.

    Raises:
        InputError: There are not two axes, or one is of a task that is not evaluated.
    """
    axes = [part.partition(":") for part in text.split(",")]
    names = [task.name for task in tasks]
    if len(axes) != 2 or any(task not in names for task, _, _ in axes):
        raise InputError(
            f"--frontier {text!r}: write TASK,TASK or TASK:METRIC,TASK:METRIC of {quoted_names(names)}."
        )
    x, y = ((task, metric or None) for task, _, metric in axes)
    return x, y
