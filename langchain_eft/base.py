"""What the chat model, the completion model and the reward scorer share: fields, recipe, engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.language_models.base import BaseLanguageModel, LangSmithParams
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.parameters import (
    SAMPLING_PARAMETERS,
    DecodingParameters,
    checked_timeout,
    refuse_unknown,
    stop_strings,
)
from langchain_eft.chat.prompts import Prompts
from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.engine.config import Dtype, EngineConfig
from langchain_eft.engine.error_text import describe, quoted_names
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, RequestError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import BaseTemplate, BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.engine.request import Speculation
from langchain_eft.errors import langchain_errors
from langchain_eft.presets import load_preset
from langchain_eft.presets.recipe import build_recipe

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_VERSION = version("langchain-eft")

_REQUEST_FIELDS = ("upscale_strength", "upscale_top_p", "speculation", "trace")
"""Fields of a model that are fields of the engine's request too."""

_IDENTITY_FIELDS = ("upscale_strength", "upscale_top_p", "max_tokens", "trace")
"""Fields that change an answer, besides those of recipe, engine and sampling."""


class BaseEFT(BaseModel):
    """Fields, recipe and engine access of every LangChain model of this package."""

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model: str = Field(default="smol", alias="model_name")
    """The large base: a preset name, hub id, local folder or `.gguf` file."""

    behaviors: dict[str, BehaviorDelta] = Field(default_factory=dict)
    """Behaviors that can be mixed in, by name. With a preset they are added to the preset's own."""

    mixture: dict[str, Weight] | None = None
    """Weight of each behavior: 1 is as trained, 0 is off, `{}` is the base alone. The default is the preset's
    own mixture; without a preset, the only behavior has weight 1."""

    upscale_strength: float = 1.0
    """beta: values above 1 amplify what the large model adds to the small ones; 0 leaves it out."""

    upscale_top_p: float = 1.0
    """Conservative decoding: below 1, the large model only re-weights tokens inside this nucleus of the
    small mixture."""

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

    device: str = "auto"
    """Device of the weights: `auto` is CUDA where there is a GPU, else the CPU."""

    dtype: Dtype = "auto"
    """Precision of weights and activations: `auto` is bfloat16 on a GPU and float32 on a CPU."""

    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Further `EngineConfig` settings, for example `{"max_batch_size": 32, "kv_cache_tokens": 65536}`."""

    chat_template: Path | None = None
    """A Jinja chat template file that replaces the tokenizer's own."""

    base_template: BaseTemplate | None = None
    """Template that base and references read instead of the chat template, on which they may not have been
    trained: `transcript`, or a Jinja template file of plain text. Tuned models keep the chat template."""

    unscaled_tokens: tuple[str, ...] | None = None
    """Special tokens that the base was not trained on: the small mixture alone decides their probability. By
    default they are read from the tuned models' chat templates; `()` is none."""

    allow_negative_weights: bool = False
    """Allow weights below 0, and mixtures that divide by the base or by a tuned model. They push away from a
    behavior and can undo safety training."""

    # Accepted, so that a hosted model can be replaced by this one without a change of arguments

    max_retries: int = 2
    """Has no effect: decoding in this process has nothing to retry."""

    api_key: SecretStr | None = None
    """Has no effect: nothing is sent anywhere."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            names = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            refuse_unknown(values, names, cls.__name__)
        return values

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        try:
            self.recipe.check(self.active_mixture)
            _ = self.engine_config
            self.decoding_parameters(None, {}).request(Prompts((0,), {}), self.max_tokens)
        except ValidationError as error:
            raise ValueError(describe(error)) from error
        except CheckpointNotFoundError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _set_langchain_eft_version(self) -> Self:
        if isinstance(self, BaseLanguageModel):
            self._add_version("langchain-eft", _VERSION)
        return self

    # Recipe and engine

    @property
    def recipe(self) -> Recipe:
        """The weights that this model decodes with: the base, and every behavior that can be mixed in."""
        return self._recipe_of(self.model)

    @property
    def active_mixture(self) -> Mixture:
        """The mixture of calls that give none: the field's value, or its default."""
        return self._mixture(self.model, self.mixture)

    @property
    def engine_config(self) -> EngineConfig:
        """How the engine uses the machine."""
        return EngineConfig(**{"device": self.device, "dtype": self.dtype, **self.engine_options})

    @property
    def engine(self) -> Engine:
        """The engine that this model shares with every other model of the same recipe."""
        return self.open()

    def open(self, progress: Progress = silent, *, model: str | None = None) -> Engine:
        """Return the shared engine; load its weights now instead of at the first call.

        Args:
            progress: Receives a few words about each step of loading.
            model: A base to use instead of this model's own.

        Raises:
            ModelNotFoundError: Weights that are neither on this machine nor reachable.
            EngineError: Models that cannot be loaded or combined.
        """
        from langchain_eft.engine.registry import open_engine

        with langchain_errors():
            return open_engine(self._recipe_of(model or self.model), self.engine_config, progress)

    async def _aopen(self, model: str | None = None) -> Engine:
        from langchain_eft.engine.registry import find_engine

        with langchain_errors():
            engine = find_engine(self._recipe_of(model or self.model), self.engine_config)
        return await asyncio.to_thread(self.open, model=model) if engine is None else engine

    def _recipe_of(self, model: str) -> Recipe:
        return build_recipe(
            model,
            FrozenDict(self.behaviors),
            self.chat_template,
            self.base_template,
            self.unscaled_tokens,
            self.allow_negative_weights,
        )

    def _mixture(self, model: str, mixture: dict[str, Weight] | None) -> Mixture:
        if mixture is not None:
            return Mixture.of(mixture)
        preset = load_preset(model)
        if preset is not None:
            return preset.mixture
        if len(self.behaviors) > 1:
            raise RecipeError(
                f"There are {len(self.behaviors)} behaviors and no `mixture`: give the weight of each, for "
                f"example mixture={dict.fromkeys(list(self.behaviors)[:1], 1.0)}. The behaviors are "
                f"{quoted_names(self.behaviors)}."
            )
        return Mixture(weights=dict.fromkeys(self.behaviors, 1.0))

    # A call

    def decoding_parameters(
        self, stop: list[str] | None, parameters: Mapping[str, Any]
    ) -> DecodingParameters:
        """How a call is decoded: the call's parameters, and this model's fields for the others.

        Args:
            stop: Stop strings of the call; None leaves the model's own.
            parameters: Parameters of the call.

        Raises:
            RequestError: A mixture, timeout or stop string that cannot be read.
            RecipeError: There is no mixture, and no default for it.
        """

        def value(name: str) -> Any:
            return parameters.get(name, getattr(self, name))

        model = parameters.get("model") or self.model
        mixture = parameters.get("mixture")
        max_tokens = parameters.get("max_tokens")
        stop = self.stop if stop is None else stop
        sampling = {name: value(name) for name in SAMPLING_PARAMETERS}
        if sampling["seed"] is None:
            del sampling["seed"]
        try:
            return DecodingParameters(
                model=model,
                mixture=self._mixture(model, self.mixture if mixture is None else mixture),
                sampling=sampling,
                max_tokens=self.max_tokens if max_tokens is None else max_tokens,
                shrink=max_tokens is None and "max_tokens" not in self.model_fields_set,
                stop=stop_strings(stop),
                timeout=checked_timeout(value("timeout")),
                fields={
                    **{name: value(name) for name in _REQUEST_FIELDS},
                    "answer_prefix": parameters.get("answer_prefix") or (),
                },
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    # What tracers, caches and token counters ask

    def identity(self) -> dict[str, Any]:
        """Everything that changes an answer, so that caches never confuse two recipes or mixtures."""
        return {
            **self.recipe.model_dump(mode="json"),
            **self.engine_config.model_dump(include={"device", "dtype", "quantization", "max_model_len"}),
            "model": self.model,
            "mixture": self.active_mixture.as_json(),
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
            ls_model_name=kwargs.get("model") or self.model,
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop
        return params

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the base, with the recipe's chat template; nothing else is loaded for it."""
        from langchain_eft.engine.loading.tokenizers import load_tokenizer
        from langchain_eft.engine.registry import find_engine

        with langchain_errors():
            engine = find_engine(self.recipe, self.engine_config)
            return engine.tokenizer if engine else load_tokenizer(self.recipe)

    def text_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens, without a chat template."""
        with langchain_errors():
            refuse_surrogates(text)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids
