"""Systems to evaluate: any chat model or chain, and the ways to decode a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence

from langchain_eft import presets
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.evaluation.cases import Answer, Case, digest, token_counts
from langchain_eft.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel

_INSTEAD = "instead-of-the-base"
"""Name of the behavior `small model - base` that nudging adds to a recipe."""

ADDRESS = " at 0x"
"""Part of a representation that holds an address, which changes with every process."""


@dataclass(frozen=True)
class System:
    """Something that answers conversations.

    Attributes:
        name: Name in tables, unique within an evaluation.
        runnable: A chat model, or a chain from messages to a message or text.
        identity: A text that changes with everything that changes the answers, so that the cache never
            confuses two systems. By default it is derived from the models and prompts of the runnable.
    """

    name: str
    runnable: Runnable[Any, Any]
    identity: str = field(default="")

    def __post_init__(self) -> None:
        if not self.identity:
            object.__setattr__(self, "identity", digest(identity(self.runnable)))

    def answer(self, case: Case, max_tokens: int | None = None, seed: int | None = None) -> Answer:
        """Answer one case.

        Args:
            case: The conversation, with its tools.
            max_tokens: Longest answer in tokens, for models with a field of that name.
            seed: Seed of the answer, for models with a field of that name.

        Raises:
            EvaluationError: The case has tools and the system cannot call tools.
        """
        model = chat_model(self.runnable)
        options = {"max_tokens": max_tokens, "seed": seed}
        fields = set() if model is None else set(type(model).model_fields)
        settings: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None and name in fields
        }
        runnable = with_tools(self.runnable, case.tools) if case.tools else self.runnable
        return _as_answer(runnable.invoke(list(case.messages), **settings), self.name)


def chat_model(runnable: Runnable[Any, Any]) -> BaseChatModel | None:
    """The chat model of a runnable, with or without bound settings; None for other runnables."""
    while isinstance(runnable, RunnableBinding):
        runnable = runnable.bound
    return runnable if isinstance(runnable, BaseChatModel) else None


def with_tools(runnable: Runnable[Any, Any], tools: Sequence[Mapping[str, Any]]) -> Runnable[Any, Any]:
    """A chat model that may call tools, with the settings that are bound to it.

    Raises:
        EvaluationError: A runnable that is not a chat model, or that cannot call tools.
    """
    if isinstance(runnable, RunnableBinding):
        inner = with_tools(runnable.bound, tools)
        return inner.bind(**runnable.kwargs).with_config(runnable.config)
    if not isinstance(runnable, BaseChatModel):
        raise EvaluationError(
            f"The task has tools, and {type(runnable).__name__} is no chat model that tools can be bound to: "
            "evaluate the chat model itself."
        )
    try:
        return runnable.bind_tools([dict(tool) for tool in tools])
    except NotImplementedError as error:
        raise EvaluationError(
            f"The task has tools, and {type(runnable).__name__} can call none: leave the task out for it."
        ) from error


def _as_answer(output: Any, name: str) -> Answer:
    if isinstance(output, str):
        return Answer(output)
    if not isinstance(output, BaseMessage):
        raise EvaluationError(
            f"The system {name!r} answers with {type(output).__name__}: it has to be a message or text."
        )
    if not isinstance(output, AIMessage):
        return Answer(output.text)
    return Answer(
        output.text,
        tuple({"name": call["name"], "args": call["args"]} for call in output.tool_calls),
        tuple(str(call.get("args") or call.get("error")) for call in output.invalid_tool_calls),
        token_counts(output),
        output.response_metadata.get("eft") or {},
    )


# Identity


def identity(runnable: Runnable[Any, Any]) -> Any:
    """Everything that changes a runnable's answers, as JSON.

    Raises:
        EvaluationError: A part of the runnable does not describe itself.
    """
    if isinstance(runnable, RunnableBinding):
        return {"bound": identity(runnable.bound), "kwargs": runnable.kwargs}
    if isinstance(runnable, RunnableSequence):
        return [identity(step) for step in runnable.steps]
    if isinstance(runnable, BaseLanguageModel):
        return _model_identity(runnable)
    if isinstance(runnable, BasePromptTemplate):
        return dumpd(runnable)
    described = json.dumps(dumpd(runnable), sort_keys=True, default=str)
    if '"not_implemented"' not in described and ADDRESS not in described:
        return described
    raise EvaluationError(
        f"{type(runnable).__name__} does not describe itself, and the cache must not mix its answers with "
        "those of another system: give System(..., identity='anything that changes with it')."
    )


def _model_identity(model: BaseLanguageModel[Any]) -> Any:
    """The parameters by which LangChain's caches distinguish models."""
    parameters = dict(model._identifying_params)
    if not parameters:
        raise EvaluationError(
            f"{type(model).__name__} has no identifying parameters, and the cache must not mix its answers "
            "with those of another model: give System(..., identity='anything that changes with it')."
        )
    # The folder in which the package is installed does not change the answers of a preset.
    folder = str(Path(presets.__file__).parent)
    described = json.dumps(parameters, sort_keys=True, default=str).replace(folder, "")
    return {"type": type(model).__qualname__, "parameters": described}


# Ways to decode a recipe


def variant(llm: EFTChatModel, **settings: Any) -> EFTChatModel:
    """The chat model with some settings changed. It shares the engine."""
    unchanged = {name: getattr(llm, name) for name in llm.model_fields_set}
    return type(llm)(**{**unchanged, **settings})


def mixed(
    llm: EFTChatModel, mixture: Mapping[str, Weight], name: str | None = None, **settings: Any
) -> System:
    """Emulated fine-tuning with a mixture: `L + sum_i w_i (F_i - S_i)`."""
    return System(name or mixture_name(mixture), variant(llm, mixture=dict(mixture), **settings))


def base_alone(llm: EFTChatModel, name: str = "base") -> System:
    """The large base model L."""
    return mixed(llm, {}, name, upscale_strength=1.0, upscale_top_p=1.0)


def reference_alone(llm: EFTChatModel, name: str = "reference") -> System:
    """The small reference model S: no behavior, and an up-scaling strength of 0."""
    return mixed(llm, {}, name, upscale_strength=0.0, upscale_top_p=1.0)


def small_alone(llm: EFTChatModel, mixture: Mapping[str, Weight], name: str | None = None) -> System:
    """The small mixture `S + sum_i w_i (F_i - S)` without the base. One behavior with weight 1 is F."""
    return mixed(
        llm, mixture, name or f"small {mixture_name(mixture)}", upscale_strength=0.0, upscale_top_p=1.0
    )


def tuned_alone(llm: EFTChatModel, behavior: str, name: str | None = None) -> System:
    """A small tuned model F."""
    return small_alone(llm, {behavior: 1.0}, name or f"tuned {behavior}")


def gated(llm: EFTChatModel, behavior: str, below: float = 0.4, name: str | None = None) -> System:
    """Emulated fine-tuning where the base is unsure, and the base alone elsewhere.

    Args:
        llm: The recipe.
        behavior: The behavior, whose weight is 1 where the base's confidence is at most `below`.
        below: The largest probability of a token under the base up to which the base counts as unsure.
        name: The system's name.
    """
    return mixed(llm, {behavior: Gate(below=below)}, name or f"gated {behavior} at {below:g}")


def nudged(llm: EFTChatModel, behavior: str, below: float = 0.4, name: str | None = None) -> System:
    """Nudging (Fei et al. 2024): the small tuned model F where the base is unsure, and the base elsewhere.

    In the formula, `F - L` has a gate. It is the sum of `F - S` and `S - L` for an adapter on S. The behavior
    that this adds is one of a recipe of its own, so an engine loads the models once more. Every token follows
    the base or F, also those that are otherwise left to the small models (`unscaled_tokens`).

    Args:
        llm: The recipe.
        behavior: The behavior of F.
        below: F decides where the base's most probable token is less probable than this; elsewhere the base
            does.
        name: The system's name.

    Raises:
        EvaluationError: The recipe has no such behavior, or the behavior has no weights, or no reference by
            name.
    """
    delta = llm.recipe.behaviors.get(behavior)
    small = None if delta is None else delta.tuned or (delta.adapter and delta.reference)
    if delta is None or small is None:
        raise EvaluationError(
            f"Nudging by {behavior!r} needs a small model: name a behavior with `tuned`, or with `adapter` "
            "and `reference`."
        )
    instead = BehaviorDelta(tuned=small, reference=llm.recipe.base)
    weights = {_INSTEAD: Gate(below=below)} | ({behavior: Gate(below=below)} if delta.adapter else {})
    model = variant(
        llm,
        behaviors={**(llm.behaviors or {}), _INSTEAD: instead},
        unscaled_tokens=(),
        mixture=weights,
        upscale_strength=1.0,
        upscale_top_p=1.0,
    )
    return System(name or f"nudged {behavior} at {below:g}", model)


def mixture_name(mixture: Mapping[str, Weight]) -> str:
    """A mixture as a name: `tools=1 concise=0.5`."""

    def word(name: str, weight: Weight) -> str:
        return f"{name}={weight:g}" if isinstance(weight, int | float) else f"{name}=({weight})"

    return " ".join(word(*item) for item in mixture.items()) or "base"


def weight_sweep(
    llm: EFTChatModel, behavior: str, weights: Iterable[float], *, small: bool = False
) -> list[System]:
    """One behavior at several weights; with `small`, without the base."""
    build = small_alone if small else mixed
    return [build(llm, {behavior: weight} if weight else {}) for weight in weights]


def interpolation(llm: EFTChatModel, first: str, second: str, shares: Iterable[float]) -> list[System]:
    """Mixtures of two behaviors: weight `share` for the first and `1 - share` for the second."""
    ends = [{first: share, second: 1 - share} for share in shares]
    return [mixed(llm, {name: weight for name, weight in mixture.items() if weight}) for mixture in ends]


def strength_sweep(llm: EFTChatModel, strengths: Iterable[float]) -> list[System]:
    """The model's mixture at several up-scaling strengths (the paper's beta)."""
    return [System(f"strength {s:g}", variant(llm, upscale_strength=s)) for s in strengths]


def top_p_sweep(llm: EFTChatModel, top_ps: Iterable[float]) -> list[System]:
    """The model's mixture with the up-scaling weights truncated at several nuclei (conservative decoding)."""
    return [
        System(f"top-p {p:g}" if p < 1 else "no truncation", variant(llm, upscale_top_p=p)) for p in top_ps
    ]


def is_emulated(runnable: Runnable[Any, Any]) -> TypeGuard[EFTChatModel]:
    """Whether a runnable is an `EFTChatModel`."""
    from langchain_eft.chat_models import EFTChatModel

    return isinstance(runnable, EFTChatModel)
