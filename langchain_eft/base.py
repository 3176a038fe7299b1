"""What a model decodes with: the settings that the chat model and the completion model share."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.language_models.base import BaseLanguageModel, LangSmithParams
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.engine.config import Dtype, EngineConfig
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, RequestError
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import BaseTemplate, BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.engine.request import GenerationRequest, SamplingParams, Speculation
from langchain_eft.errors import describe, langchain_errors
from langchain_eft.presets import load_preset, preset_names

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_VERSION = version("langchain-eft")

SAMPLING = frozenset(SamplingParams.model_fields)
"""Names of the sampling parameters, which are fields of a model and may be given per call."""

PER_CALL = SAMPLING | {
    "max_tokens", "mixture", "model", "speculation", "stop", "stream", "timeout",
    "trace", "upscale_strength", "upscale_top_p",
}  # fmt: skip
"""Everything that any call may set."""


class EFTSettings(BaseModel):
    """Fields and methods of every LangChain model here."""

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model: str = Field(default="smol", alias="model_name")
    """The large base: a preset name, hub id, local folder or `.gguf` file."""

    behaviors: dict[str, BehaviorDelta] = Field(default_factory=dict)
    """Behaviours that can be mixed in, by name. With a preset they are added to the preset's own."""

    mixture: dict[str, Weight] | None = None
    """Weight of each behaviour: 1 is as trained, 0 is off, `{}` is the base alone. Left out, it is the
    preset's own mixture, or the only behaviour there is."""

    upscale_strength: float = 1.0
    """beta: above 1 amplifies what the large model adds to the small ones, 0 leaves the small ones alone."""

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
    """How many tokens the small models (or earlier text) guess ahead of each pass of the large one: `auto`
    follows what pays, `off` is none, a number is fixed. It changes the speed, never the text."""

    trace: bool = False
    """Report what every model contributes to each token, in `response_metadata["trace"]` (for completions, in
    `generation_info["trace"]`): `EFTTrace` reads and shows it."""

    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens. The default shrinks to what the context window leaves; a value that was
    set must fit, or the call raises `ContextOverflowError`."""

    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Strings that end the answer; they are not part of it. A call's `stop` replaces them."""

    seed: int | None = None
    """Same seed, same text, whatever else is decoded beside it. Left out, every call draws its own."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds that an answer may take, loading apart; then `ModelTimeoutError` is raised."""

    device: str = "auto"
    """Where the weights live: `auto` takes CUDA where there is one, else the CPU."""

    dtype: Dtype = "auto"
    """Precision of weights and activations: `auto` is bfloat16 on a GPU and float32 on a CPU."""

    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Further `EngineConfig` settings, for example `{"max_batch_size": 32, "kv_cache_tokens": 65536}`."""

    chat_template: Path | None = None
    """A Jinja chat template file that replaces the tokenizer's own."""

    base_template: BaseTemplate | None = None
    """What base and references read instead of the chat template, which they may never have been trained on:
    `transcript`, or a Jinja template file of plain text. Tuned models keep the chat template."""

    unscaled_tokens: tuple[str, ...] | None = None
    """Special tokens that follow the small mixture alone, because the base was never trained on them. Left
    out, they are found in the tuned models' chat templates; `()` is none."""

    allow_negative_weights: bool = False
    """Negative weights push away from a behaviour and can undo safety training: refused unless set."""

    max_retries: int = 2
    """Accepted for interchangeability with hosted models; decoding in process has nothing to retry."""

    api_key: SecretStr | None = None
    """Accepted for interchangeability with hosted models; nothing is sent anywhere."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            names = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            refuse_unknown(set(values) - names, names, cls.__name__)
        return values

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        try:
            self.recipe.check(self.active_mixture)
            _ = self._sampling(), self.engine_config
            GenerationRequest(
                prompt_ids=(0,), upscale_strength=self.upscale_strength, upscale_top_p=self.upscale_top_p,
                speculation=self.speculation, stop=tuple(self.stop or ()),
            )  # fmt: skip
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

    # What is loaded

    def open(self, progress: Progress = silent, *, model: str | None = None) -> Engine:
        """Load the weights now, instead of at the first call, and return the shared engine.

        Args:
            progress: Told, in a few words, what is being waited for.
            model: Base to use instead of this model's own.

        Raises:
            ModelNotFoundError: Weights that are neither here nor reachable.
            EngineError: Models that cannot be loaded or combined.
        """
        from langchain_eft.engine.registry import open_engine

        with langchain_errors():
            return open_engine(self._recipe_of(model or self.model), self.engine_config, progress)

    async def _aopen(self, model: str | None = None) -> Engine:
        from langchain_eft.engine.registry import find_engine

        with langchain_errors():
            found = find_engine(self._recipe_of(model or self.model), self.engine_config)
        if found is not None:
            return found
        return await asyncio.to_thread(self.open, model=model)

    @property
    def engine(self) -> Engine:
        """The engine that this model shares with every other model of the same recipe."""
        return self.open()

    @property
    def recipe(self) -> Recipe:
        """The weights that this model decodes with: base, and every behaviour that can be mixed in."""
        return self._recipe_of(self.model)

    @property
    def active_mixture(self) -> Mixture:
        """The mixture of calls that give none: the field's, or the default that stands in for it."""
        return self._mixture()

    def _recipe_of(self, name: str) -> Recipe:
        return _recipe(
            name,
            FrozenDict(self.behaviors),
            self.chat_template,
            self.base_template,
            self.unscaled_tokens,
            self.allow_negative_weights,
        )

    @property
    def engine_config(self) -> EngineConfig:
        """How the engine uses the machine."""
        return EngineConfig(**{"device": self.device, "dtype": self.dtype, **self.engine_options})

    # What a call decodes

    def _mixture(self, model: str | None = None, mixture: dict[str, Weight] | None = None) -> Mixture:
        chosen = self.mixture if mixture is None else mixture
        if chosen is not None:
            return Mixture.of(chosen)
        preset = load_preset(model or self.model)
        if preset is not None:
            return preset.mixture
        if len(self.behaviors) > 1:
            raise RecipeError(
                f"There are {len(self.behaviors)} behaviours and no `mixture`: say how much of each, for "
                f"example mixture={dict.fromkeys(list(self.behaviors)[:1], 1.0)}; known are "
                f"{quoted_names(self.behaviors)}."
            )
        return Mixture(weights=dict.fromkeys(self.behaviors, 1.0))

    def _sampling(self, **overrides: Any) -> SamplingParams:
        values = {name: overrides.get(name, getattr(self, name)) for name in SAMPLING}
        if values["seed"] is None:
            del values["seed"]
        return SamplingParams(**values)

    def call_mixture(self, parameters: Mapping[str, Any]) -> Mixture:
        """The mixture of a call with these parameters.

        Raises:
            RequestError: A mixture that cannot be read.
        """
        try:
            return self._mixture(parameters.get("model"), parameters.get("mixture"))
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    def _max_tokens(self, engine: Engine, prompts: Iterable[tuple[int, ...]], asked: int | None) -> int:
        if asked is not None:
            return asked
        if "max_tokens" in self.model_fields_set:
            return self.max_tokens
        return max(1, min(self.max_tokens, engine.room(*map(len, prompts))))

    def call_timeout(self, parameters: Mapping[str, Any]) -> float | None:
        """Seconds that the answers of a call may take.

        Raises:
            RequestError: No positive number.
        """
        timeout: float | None = parameters.get("timeout", self.timeout)
        if timeout is not None and not timeout > 0:
            raise RequestError(
                f"timeout={timeout!r}: give a positive number of seconds, or None for no limit."
            )
        return timeout

    def generation_request(
        self, engine: Engine, prompt: tuple[int, ...], stop: list[str] | None, **settings: Any
    ) -> GenerationRequest:
        """One call as the engine's request: the call's parameters over the model's own.

        Args:
            engine: Which will decode it.
            prompt: Token ids.
            stop: Stop strings of the call.
            settings: Parameters of the call, and further fields of the request.

        Raises:
            RequestError: A value that cannot be served.
        """
        stop = self.stop if stop is None else stop
        own = {name: settings.pop(name, getattr(self, name)) for name in _OWN}
        sampling = {name: settings.pop(name) for name in SAMPLING & settings.keys()}
        model, mixture = settings.pop("model", None), settings.pop("mixture", None)
        prompts = [prompt, *settings.get("contexts", {}).values()]
        try:
            return GenerationRequest(
                prompt_ids=prompt,
                mixture=self._mixture(model, mixture),
                sampling=self._sampling(**sampling),
                max_tokens=self._max_tokens(engine, prompts, settings.pop("max_tokens", None)),
                stop=tuple([stop] if isinstance(stop, str) else stop or ()),
                **own,
                **settings,
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    # What tracers, caches and token counters ask

    def identity(self) -> dict[str, Any]:
        """Everything that changes the answer, so that caches never mix two recipes or mixtures."""
        return {
            **self.recipe.model_dump(mode="json"),
            **self.engine_config.model_dump(include={"device", "dtype", "quantization", "max_model_len"}),
            "model": self.model,
            "mixture": self.active_mixture.as_json(),
            **{name: getattr(self, name) for name in sorted(SAMPLING)},
            **{name: getattr(self, name) for name in _IDENTITY},
            "stop_sequences": self.stop,  # LangChain puts the call's own under "stop"
        }

    def tracing_params(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, **kwargs: Any
    ) -> LangSmithParams:
        """What traces say about the model; a call's parameters count."""
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

    def known_window(self) -> int | None:
        """Tokens of prompt and answer that fit, as far as it can be told without loading anything."""
        recipe, limit = self.recipe, self.engine_config.max_model_len
        sources = [recipe.base, *(s for d in recipe.behaviors.values() for s in (d.tuned, d.reference))]
        windows = [window for source in sources if (window := _window_of(source)) is not None]
        return min([*windows, *([limit] if limit else [])], default=None)

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
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


_IDENTITY = ("upscale_strength", "upscale_top_p", "max_tokens", "trace")
_OWN = ("upscale_strength", "upscale_top_p", "speculation", "trace")


@lru_cache(maxsize=64)  # models are built over and over, and looking at files may block an event loop
def _recipe(
    name: str,
    behaviors: FrozenDict[str, BehaviorDelta],
    chat_template: Path | None,
    base_template: BaseTemplate | None,
    unscaled_tokens: tuple[str, ...] | None,
    allow_negative_weights: bool,  # noqa: FBT001
) -> Recipe:
    preset = load_preset(name)
    if preset is None and not _names_a_model(name):
        raise CheckpointNotFoundError(
            f"model={name!r} is neither a preset ({quoted_names(preset_names())}), nor a local folder or "
            ".gguf file, nor a hub id of the form 'owner/name' or 'owner/name/path@revision'."
        )
    base = preset.recipe if preset else Recipe(base=name)
    shared = next((delta.reference for delta in base.behaviors.values()), None)
    own = {
        key: delta.model_copy(update={"reference": shared}) if _lacks_reference(delta) else delta
        for key, delta in behaviors.items()
    }
    return Recipe(
        base=base.base,
        behaviors={**base.behaviors, **own},
        chat_template=chat_template or base.chat_template,
        base_template=base_template or base.base_template,
        unscaled_tokens=unscaled_tokens,
        allow_negative_weights=allow_negative_weights,
    )


def refuse_unknown(unknown: set[str], names: set[str] | frozenset[str], where: str) -> None:
    """Refuse parameters by name, with the known ones and a guess.

    Raises:
        RequestError: If there is anything unknown.
    """
    if unknown:
        guesses = [g for name in unknown for g in difflib.get_close_matches(name, names, 1)]
        hint = f" Did you mean {quoted_names(guesses)}?" if guesses else ""
        raise RequestError(
            f"Unknown parameter {quoted_names(unknown)} for {where}.{hint} Known are {quoted_names(names)}."
        )


def _lacks_reference(delta: BehaviorDelta) -> bool:
    return delta.has_weights and delta.reference is None


def _names_a_model(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_dir() or path.is_file() or HubModel.parse(name) is not None


@lru_cache(maxsize=64)
def _window_of(source: object) -> int | None:
    """The window that a local folder's configuration allows."""
    config = Path(str(source)).expanduser() / "config.json" if isinstance(source, str) else None
    if config is None or not config.is_file():
        return None
    stated = SimpleNamespace(**json.loads(config.read_text()))
    return context_window(stated) if hasattr(stated, "max_position_embeddings") else None
