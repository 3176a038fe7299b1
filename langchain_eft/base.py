"""What the chat model and the completion model share: how tokens are drawn, and what tracers are told."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Self

from langchain_core.language_models.base import BaseLanguageModel, LangSmithParams
from langchain_core.runnables import RunnableConfig
from pydantic import Field, ValidationError, model_validator
from typing_extensions import override

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.parameters import (
    SAMPLING_PARAMETERS,
    DecodingParameters,
    checked_timeout,
    stop_strings,
)
from langchain_eft.chat.prompts import Prompts
from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.request import Speculation
from langchain_eft.engine_user import EngineUser
from langchain_eft.sources import EngineSource

Configs = RunnableConfig | list[RunnableConfig] | None
"""What a batch takes: config for all of its calls, or for each."""


def _version() -> str:
    try:
        return version("langchain-eft")
    except PackageNotFoundError:  # the code was copied and not installed
        return "unknown"


VERSION = _version()

_IDENTITY_FIELDS = ("upscale_strength", "upscale_top_p", "max_tokens", "trace")
"""Fields that change an answer, besides those of recipe, engine and sampling."""


class BaseEFT(EngineUser):
    """Fields and calls of the models that decode."""

    temperature: float = 0.7
    """Randomness of sampling; 0 is greedy."""

    top_p: float = 0.9
    """Sample from the smallest set of tokens with this much probability; 1 keeps all."""

    top_k: int = 0
    """Sample from the k most probable tokens; 0 keeps all."""

    min_p: float = 0.0
    """Drop tokens less probable than this share of the most probable one."""

    repetition_penalty: float = 1.0
    """Multiplies the log-probability of tokens already in prompt or answer; 1 is off."""

    frequency_penalty: float = 0.0
    """Subtracted from a token's log-probability once per occurrence in the answer."""

    presence_penalty: float = 0.0
    """Subtracted once from the log-probability of every token in the answer."""

    logit_bias: dict[int, float] = Field(default_factory=dict)
    """Added to the log-probability of single token ids."""

    speculation: Speculation = "auto"
    """Tokens that the small models (or earlier text) draft for each pass of the large one: `auto` chooses the
    fastest number, `off` drafts none, a number is fixed. It changes the speed, never the text."""

    trace: bool = False
    """Report what every model contributes to each token, in `response_metadata["trace"]` (for completions, in
    `generation_info["trace"]`): `EFTTrace` reads and shows it."""

    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens. The default shrinks to what the context window leaves. A value that is set
    must fit: otherwise the call raises `ContextOverflowError`."""

    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Strings that end the answer and are not part of it. A call's `stop` replaces them."""

    seed: int | None = None
    """The same seed gives the same text in any batch. Without one, every call draws its own."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds that an answer may take, without loading; after that the call raises `ModelTimeoutError`."""

    @override
    def _check_call(self) -> None:
        # No server is asked: with a name and a mixture there is nothing to ask for.
        decoding = {"model": self.model or "default", "mixture": self.mixture or {}}
        self.decoding_parameters(None, decoding).request(Prompts((0,), {}), self.max_tokens)

    @model_validator(mode="after")
    def _set_langchain_eft_version(self) -> Self:
        if isinstance(self, BaseLanguageModel):
            self._add_version("langchain-eft", VERSION)
        return self

    # A call

    def decoding_parameters(
        self, stop: list[str] | None, parameters: Mapping[str, Any], source: EngineSource | None = None
    ) -> DecodingParameters:
        """How a call is decoded: the call's parameters, and this model's fields for the others.

        Args:
            stop: Stop strings of the call; None leaves the model's own.
            parameters: Parameters of the call.
            source: Where its engine comes from; None looks that up.

        Raises:
            RequestError: A mixture, timeout or stop string that cannot be read.
            RecipeError: There is no mixture, and no default for it.
        """

        def value(name: str) -> Any:
            return parameters.get(name, getattr(self, name))

        source = source or self._source(parameters.get("model"))
        mixture = parameters.get("mixture")
        max_tokens = parameters.get("max_tokens")
        stop = self.stop if stop is None else stop
        sampling = {name: value(name) for name in SAMPLING_PARAMETERS}
        if sampling["seed"] is None:
            del sampling["seed"]
        try:
            return DecodingParameters(
                model=source.name,
                mixture=self._mixture(source, self.mixture if mixture is None else mixture),
                sampling=sampling,
                max_tokens=self.max_tokens if max_tokens is None else max_tokens,
                shrink=max_tokens is None and "max_tokens" not in self.model_fields_set,
                stop=stop_strings(stop),
                timeout=checked_timeout(value("timeout")),
                answer_prefix=parameters.get("answer_prefix") or (),
                **{
                    name: value(name)
                    for name in ("upscale_strength", "upscale_top_p", "speculation", "trace")
                },
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    # Batches

    def paced(self, config: Configs, answers: Any = 1) -> Configs:
        """Config of a batch whose calls keep the engine busy, and wait before they fill its queue.

        LangChain's own default is a few threads, which would leave most of the engine's batch empty, or a
        task for each input, some of which the queue would refuse.

        Args:
            config: That of the caller, whose `max_concurrency` counts if it is smaller.
            answers: Answers of each call.
        """
        source = self._source()
        most = min(2 * source.max_batch_size, source.max_queued_requests)
        return bounded(config, max(most // answers, 1) if isinstance(answers, int) and answers > 1 else most)

    # What tracers, caches and token counters ask

    def identity(self) -> dict[str, Any]:
        """Everything that changes an answer, so that caches never confuse two recipes or mixtures."""
        mixture = self.mixture if self.base_url is not None else self.active_mixture.as_json()
        return {
            **self._source().identity(),
            "model": self.model,
            "mixture": mixture,
            **{name: getattr(self, name) for name in sorted(SAMPLING_PARAMETERS)},
            **{name: getattr(self, name) for name in _IDENTITY_FIELDS},
            "stop_sequences": self.stop,  # LangChain puts the stop strings of a call under "stop"
        }

    def tracing_params(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, **kwargs: Any
    ) -> LangSmithParams:
        """What tracers record about a call.

        Args:
            kind: Kind of model.
            stop: Stop strings of the call.
            kwargs: Parameters of the call.
        """
        params = LangSmithParams(
            ls_provider=PROVIDER,
            ls_model_type=kind,
            ls_model_name=kwargs.get("model") or self.model or self.base_url or "",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop
        return params


def bounded(config: Configs, most: int) -> Configs:
    """Config with at most so many calls at a time.

    Args:
        config: That of the caller.
        most: The number.
    """

    def bound(each: RunnableConfig) -> RunnableConfig:
        return {**each, "max_concurrency": min(each.get("max_concurrency") or most, most)}

    return list(map(bound, config)) if isinstance(config, list | tuple) else bound(config or {})
