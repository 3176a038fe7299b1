"""What is evaluated: any chat model or chain, and the ways to decode a recipe as systems of their own."""

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
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.evaluation.cases import Answer, Case, digest, token_counts
from langchain_eft.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel

ADDRESS = " at 0x"
"""What gives away a text that names an object of this process only."""


@dataclass(frozen=True)
class System:
    """Something that answers conversations.

    Attributes:
        name: What it is called in tables; unique within an evaluation.
        runnable: A chat model, or a chain from messages to a message or text.
        identity: Stands for everything that changes its answers, so that cached answers are never another
            system's. Left out, it is read off the models and prompts that the runnable is made of.
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
            max_tokens: Longest answer; for models that have a field of that name; others have their own.
            seed: For models that have a field of that name.

        Raises:
            EvaluationError: The case has tools and the system cannot be given any.
        """
        model = chat_model(self.runnable)
        wanted = {"max_tokens": max_tokens, "seed": seed}
        fields = set() if model is None else set(type(model).model_fields)
        settings: dict[str, Any] = {
            name: value for name, value in wanted.items() if value is not None and name in fields
        }
        runnable = with_tools(self.runnable, case.tools) if case.tools else self.runnable
        said = runnable.invoke(list(case.messages), **settings)
        return _read(said, self.name)


def chat_model(runnable: Runnable[Any, Any]) -> BaseChatModel | None:
    """The chat model that a runnable is, bound to settings or not; None if it is anything else."""
    while isinstance(runnable, RunnableBinding):
        runnable = runnable.bound
    return runnable if isinstance(runnable, BaseChatModel) else None


def with_tools(runnable: Runnable[Any, Any], tools: Sequence[Mapping[str, Any]]) -> Runnable[Any, Any]:
    """A chat model that may call tools, with the settings that were bound to it.

    Raises:
        EvaluationError: It is no chat model, or one that cannot call tools.
    """
    if isinstance(runnable, RunnableBinding):
        inner = with_tools(runnable.bound, tools)
        return inner.bind(**runnable.kwargs).with_config(runnable.config)
    if not isinstance(runnable, BaseChatModel):
        raise EvaluationError(
            f"The task offers tools, and {type(runnable).__name__} is no chat model that they could be bound "
            "to: evaluate the chat model itself."
        )
    try:
        return runnable.bind_tools([dict(tool) for tool in tools])
    except NotImplementedError as error:
        raise EvaluationError(
            f"The task offers tools, and {type(runnable).__name__} can call none: leave the task out for it."
        ) from error


def _read(said: Any, name: str) -> Answer:
    if isinstance(said, str):
        return Answer(said)
    if not isinstance(said, BaseMessage):
        raise EvaluationError(
            f"The system {name!r} answers with {type(said).__name__}: it has to be a message or text."
        )
    if not isinstance(said, AIMessage):
        return Answer(said.text)
    return Answer(
        said.text,
        tuple({"name": call["name"], "args": call["args"]} for call in said.tool_calls),
        tuple(str(call.get("args") or call.get("error")) for call in said.invalid_tool_calls),
        token_counts(said),
        said.response_metadata.get("eft") or {},
    )


# Identity


def identity(runnable: Runnable[Any, Any]) -> Any:
    """What changes a runnable's answers, as JSON.

    Raises:
        EvaluationError: Nothing is known about a part of it.
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
        f"Nothing tells what {type(runnable).__name__} answers with, and cached answers must not be mistaken "
        "for another system's: give System(..., identity='anything that changes with it')."
    )


def _model_identity(model: BaseLanguageModel[Any]) -> Any:
    """A model's own parameters, as LangChain's caches tell models apart."""
    own = dict(model._identifying_params)
    if not own:
        raise EvaluationError(
            f"{type(model).__name__} tells no identifying parameters, and cached answers must not be "
            "mistaken for another model's: give System(..., identity='anything that changes with it')."
        )
    # Where the package is installed changes no answer of a preset.
    described = json.dumps(own, sort_keys=True, default=str).replace(str(Path(presets.__file__).parent), "")
    return {"type": type(model).__qualname__, "parameters": described}


# Ways to decode a recipe


def variant(llm: EFTChatModel, **settings: Any) -> EFTChatModel:
    """The chat model with some settings changed, checked as usual; it shares the engine."""
    own = {name: getattr(llm, name) for name in llm.model_fields_set}
    return type(llm)(**{**own, **settings})


def mixed(
    llm: EFTChatModel, mixture: Mapping[str, Weight], name: str | None = None, **settings: Any
) -> System:
    """Emulated fine-tuning with a mixture: `L + sum_i w_i (F_i - S_i)`."""
    return System(name or spelled(mixture), variant(llm, mixture=dict(mixture), **settings))


def base_alone(llm: EFTChatModel, name: str = "base") -> System:
    """The large base model L."""
    return mixed(llm, {}, name, upscale_strength=1.0, upscale_top_p=1.0)


def reference_alone(llm: EFTChatModel, name: str = "reference") -> System:
    """The small reference model S: no behaviour, and an up-scaling strength of 0."""
    return mixed(llm, {}, name, upscale_strength=0.0, upscale_top_p=1.0)


def small_alone(llm: EFTChatModel, mixture: Mapping[str, Weight], name: str | None = None) -> System:
    """The small mixture `S + sum_i w_i (F_i - S)` without the base; of one behaviour at weight 1, F."""
    return mixed(llm, mixture, name or f"small {spelled(mixture)}", upscale_strength=0.0, upscale_top_p=1.0)


def tuned_alone(llm: EFTChatModel, behavior: str, name: str | None = None) -> System:
    """A small tuned model F."""
    return small_alone(llm, {behavior: 1.0}, name or f"tuned {behavior}")


def spelled(mixture: Mapping[str, Weight]) -> str:
    """A mixture in words: `tools=1 concise=0.5`."""

    def word(name: str, weight: Weight) -> str:
        return f"{name}={weight:g}" if isinstance(weight, int | float) else f"{name}=({weight})"

    return " ".join(word(*item) for item in mixture.items()) or "base"


def weight_sweep(
    llm: EFTChatModel, behavior: str, weights: Iterable[float], *, small: bool = False
) -> list[System]:
    """One behaviour at several weights; with `small`, without the base."""
    build = small_alone if small else mixed
    return [build(llm, {behavior: weight} if weight else {}) for weight in weights]


def interpolation(llm: EFTChatModel, first: str, second: str, shares: Iterable[float]) -> list[System]:
    """Between two behaviours: weight `share` for the first and `1 - share` for the second."""
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
