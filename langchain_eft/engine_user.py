"""What every LangChain model of this package shares: which p is meant, and access to the engine of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from langchain_core.utils import secret_from_env
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from langchain_eft.chat.parameters import refuse_unknown
from langchain_eft.chat.prompts import Prompts
from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.config import Dtype, EngineConfig
from langchain_eft.engine.error_text import describe, quoted_names, shown
from langchain_eft.engine.errors import EngineError, RequestError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import BaseTemplate, BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.notation import as_mapping
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.errors import langchain_errors
from langchain_eft.presets.recipe import build_recipe
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.sources import EngineSource, LocalSource, RemoteSource

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_LOCAL_FIELDS = (
    "behaviors", "device", "dtype", "engine_options", "chat_template", "base_template", "unscaled_tokens",
    "allow_negative_weights",
)  # fmt: skip
"""Fields that concern an engine in this process alone."""


@contextmanager
def field_errors() -> Iterator[None]:
    """Raise errors about fields as pydantic's, whose text then has little more than their own.

    Raises:
        PydanticCustomError: For an error of the engine, or one of pydantic about a part of a field.
    """
    try:
        yield
    except (ValidationError, EngineError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else str(error)
        raise PydanticCustomError("value_error", "{reason}", {"reason": reason}) from error


def _as_weights(mixture: Any) -> Any:
    with field_errors():
        weights = as_mapping(mixture)
        return weights if weights is None or isinstance(weights, Mapping) else Mixture.of(weights)


class EngineUser(BaseModel):
    """Fields that say which engine answers, with which mixture, and access to that engine."""

    model_config = ConfigDict(
        populate_by_name=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # among the values are keys
    )

    model: str = Field(default="smol", alias="model_name")
    """The large base: a preset name, hub id, local folder or `.gguf` file. With `base_url` it is the server's
    name of a model, or of a mixture such as `smol:pirate=1`; the default is then the server's first model."""

    base_url: str | None = None
    """Address of a server that decodes, such as `http://127.0.0.1:8000/v1`: `langchain-eft serve`, or vLLM
    with a folder that `langchain-eft export` wrote. Without one, an engine in this process decodes."""

    tokenizer_source: str | None = Field(default=None, alias="tokenizer")
    """For vLLM on another machine: the exported folder without its weights, or its hub id."""

    behaviors: dict[str, BehaviorDelta] = Field(default_factory=dict)
    """Behaviors that can be mixed in, by name. With a preset they are added to the preset's own."""

    mixture: Annotated[dict[str, Weight] | None, BeforeValidator(_as_weights)] = None
    """Weight of each behavior: 1 is as trained, 0 is off, `{}` is the base alone. Text such as
    `"pirate=0.7,concise=1"` is read as on the command line. The default is the preset's
    own mixture; without a preset, the only behavior has weight 1. With `base_url` it is the server's own."""

    upscale_strength: float = 1.0
    """beta: values above 1 amplify what the large model adds to the small ones; 0 leaves it out."""

    upscale_top_p: float = 1.0
    """Conservative decoding: below 1, the large model only re-weights tokens inside this nucleus of the
    small mixture."""

    device: str = "auto"
    """Device of the weights: `auto` is CUDA where there is a GPU, else the CPU."""

    dtype: Dtype = "auto"
    """Precision of weights and activations: `auto` is bfloat16 on a GPU and float32 on a CPU, where weights
    that were saved in 16 bits stay so."""

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

    # With `base_url`; in this process there is nothing to retry, and nothing is sent anywhere

    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again that no server has begun to answer: where nothing listens, or where a
    busy server says when to come back. Without `base_url` it has no effect."""

    api_key: SecretStr | None = Field(
        default_factory=secret_from_env("LANGCHAIN_EFT_API_KEY", default=None), repr=False
    )
    """Key of the server; by default that in the variable LANGCHAIN_EFT_API_KEY. Space around it is no part of
    it. Without `base_url` it has no effect."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            names = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            with field_errors():
                refuse_unknown(values, names, cls.__name__)
            if values.get("base_url") is not None and not {"model", "model_name"} & values.keys():
                return {**values, "model": ""}
        return values

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        with field_errors():
            self._check_place()
            self._check_call()
        return self

    def _check_place(self) -> None:
        """Refuse fields that do not go with the place where the model decodes.

        Raises:
            RequestError: Fields of a local engine for a remote one, or the other way around.
            RecipeError: A mixture that the local recipe cannot decode.
        """
        if self.base_url is None:
            if self.tokenizer_source is not None:
                raise RequestError(
                    f"tokenizer={self.tokenizer_source!r} goes with `base_url`: in this process the models "
                    "bring their own. Leave it out."
                )
            self.recipe.check(self.active_mixture)
            return
        _ = self._source()
        local = [name for name in _LOCAL_FIELDS if name in self.model_fields_set]
        if local:
            raise RequestError(
                f"base_url={self.base_url!r} lets a server decode, and {quoted_names(local)} would concern "
                "an engine in this process: leave them out, and set them where the server starts."
            )

    def _check_call(self) -> None:
        """Refuse fields with which no call can succeed.

        Raises:
            RequestError: A value that the engine does not accept.
        """
        # No server is asked for its own mixture.
        self.formula_request(Prompts((0,), {}), Mixture.of(self.mixture or {}))

    # Recipe and engine

    @property
    def recipe(self) -> Recipe:
        """The base, and every behavior that can be mixed in: weights here, or their names on a server."""
        with langchain_errors():
            return self._source().recipe

    @property
    def active_mixture(self) -> Mixture:
        """The mixture of calls that give none: the field's value, or its default."""
        with langchain_errors():
            return self._mixture(self._source(), self.mixture)

    @property
    def engine_config(self) -> EngineConfig:
        """How an engine of this process uses the machine."""
        return EngineConfig(**{"device": self.device, "dtype": self.dtype, **self.engine_options})

    @property
    def engine(self) -> BaseEngine:
        """The engine that this model shares with every other model of the same recipe or server."""
        return self.open()

    def open(self, progress: Progress = silent) -> BaseEngine:
        """Return the shared engine. Its weights are loaded now, or its server is asked what it serves.

        Args:
            progress: Receives a few words about each step of loading.

        Raises:
            ModelNotFoundError: Weights that are neither on this machine nor reachable; a server without this
                model.
            ModelConnectionError: A server that cannot be reached.
            EngineError: Models that cannot be loaded or combined.
        """
        with langchain_errors():
            return self._source().open(progress)

    def open_local(self, progress: Progress = silent) -> Engine:
        """As `open`, for what only an engine of this process can do, because it looks at the models.

        Args:
            progress: Receives a few words about each step of loading.

        Raises:
            ModelInvalidRequestError: The model decodes on a server.
            EngineError: As `open`.
        """
        with langchain_errors():
            source = self._source()
            if isinstance(source, RemoteSource):
                raise RequestError(
                    f"This needs the models themselves, and base_url={self.base_url!r} names a server: run "
                    "it where the weights are, without `base_url`."
                )
            return source.open(progress)

    def _source(self, model: str | None = None) -> EngineSource:
        """Where the engine comes from.

        Args:
            model: A model to use instead of this model's own.

        Raises:
            RequestError: A model that is not a string.
        """
        name = model or self.model
        if not isinstance(name, str):
            raise RequestError(f"model={shown(name)} is not a model's name: give a string, such as 'smol'.")
        if self.base_url is not None:
            return RemoteSource(self._endpoint(name))
        recipe = build_recipe(
            name,
            FrozenDict(self.behaviors),
            self.chat_template,
            self.base_template,
            self.unscaled_tokens,
            self.allow_negative_weights,
        )
        return LocalSource(name, recipe, self.engine_config)

    def _endpoint(self, model: str) -> Endpoint:
        """The server, and its model.

        Raises:
            RequestError: An address or a key that cannot be used. Neither is in the message.
        """
        try:
            return Endpoint(
                url=self.base_url,
                model=model,
                api_key=self.api_key,
                tokenizer=self.tokenizer_source,
                max_retries=self.max_retries,
            )
        except ValidationError as error:
            raise RequestError(describe(error, secret=True)) from error

    @staticmethod
    def _mixture(source: EngineSource, mixture: Any) -> Mixture:
        return source.mixture if mixture is None else Mixture.of(as_mapping(mixture))

    # What the engine is asked

    def formula_request(self, prompts: Prompts, mixture: Mixture, **upscaling: float) -> GenerationRequest:
        """A request that says which p is meant, and not how tokens are drawn from it.

        Args:
            prompts: What the models read.
            mixture: Weight of each behavior.
            upscaling: `upscale_strength` and `upscale_top_p`, instead of this model's own.

        Raises:
            RequestError: A value that the engine does not accept.
        """
        own = {"upscale_strength": self.upscale_strength, "upscale_top_p": self.upscale_top_p}
        try:
            return GenerationRequest(
                prompt_ids=prompts.main,
                contexts=prompts.named,
                mixture=mixture,
                **{**own, **upscaling},
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the base, with the recipe's chat template; no weights are loaded for it."""
        with langchain_errors():
            return self._source().tokenizer

    def text_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens, without a chat template."""
        with langchain_errors():
            refuse_surrogates(text)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids
