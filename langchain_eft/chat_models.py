"""EFTChatModel: emulated fine-tuning as a LangChain chat model."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator
from typing_extensions import override

from langchain_eft.behaviors import BehaviorDelta, Mixture, Recipe, known
from langchain_eft.engine.config import Dtype, EngineConfig
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, RequestError
from langchain_eft.engine.request import Finished, GenerationRequest, SamplingParams, Speculation, TextDelta
from langchain_eft.errors import describe, langchain_errors
from langchain_eft.messages import encode
from langchain_eft.presets import load_preset, preset_names

if TYPE_CHECKING:
    from langchain_eft.engine.checkpoints import Progress
    from langchain_eft.engine.engine import Engine

PROVIDER = "eft"

_SAMPLING = frozenset(SamplingParams.model_fields)
_PER_CALL = _SAMPLING | {
    "max_tokens", "mixture", "model", "speculation", "stop", "stream", "timeout",
    "upscale_strength", "upscale_top_p",
}  # fmt: skip


class EFTChatModel(BaseChatModel):
    """Chat with an emulated fine-tuned model.

    A large base model's knowledge and small fine-tuned models' behaviours, added up token by token while
    decoding (Mitchell et al. 2023): `log p = L + sum_i w_i (F_i - S_i)`. Nothing large is ever trained.

    Weights are loaded on first use, once per process and recipe, and shared by every model that names the
    same recipe; building an `EFTChatModel` costs nothing.

    Example:
        ```python
        from langchain_eft import EFTChatModel

        llm = EFTChatModel(temperature=0)  # the bundled "smol" preset: real weights, offline
        llm.invoke("What is the capital of Japan?").content
        llm.invoke("What is the capital of Japan?", mixture={"pirate": 1.0}).content

        for chunk in llm.stream("Tell me about whales.", mixture={"concise": 1.0}):
            print(chunk.content, end="")
        ```

        Your own models, of any Hugging Face family that shares one vocabulary:

        ```python
        llm = EFTChatModel(
            model="Qwen/Qwen2.5-32B",
            behaviors={
                "chat": BehaviorDelta(
                    tuned="Qwen/Qwen2.5-1.5B-Instruct", reference="Qwen/Qwen2.5-1.5B"
                ),
                "house": BehaviorDelta(adapter="./house-style-lora", reference="Qwen/Qwen2.5-1.5B"),
            },
            mixture={"chat": 1.0, "house": 0.5},
        )
        ```
    """

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model: str = Field(default="smol", alias="model_name")
    """The large base: a preset name, hub id, local folder or `.gguf` file."""

    behaviors: dict[str, BehaviorDelta] = Field(default_factory=dict)
    """Behaviours that can be mixed in, by name. With a preset they are added to the preset's own."""

    mixture: dict[str, float] | None = None
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

    allow_negative_weights: bool = False
    """Negative weights push away from a behaviour and can undo safety training: refused unless set."""

    streaming: bool = False
    """Let `invoke` stream internally, for callbacks that want every token."""

    max_retries: int = 2
    """Accepted for interchangeability with hosted models; decoding in process has nothing to retry."""

    api_key: SecretStr | None = None
    """Accepted for interchangeability with hosted models; nothing is sent anywhere."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            names = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            _refuse(set(values) - names, names, "EFTChatModel")
        return values

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        try:
            self.recipe.check(self.active_mixture)
            _ = self._sampling(), self._config()
            GenerationRequest(
                prompt_ids=(0,), upscale_strength=self.upscale_strength, upscale_top_p=self.upscale_top_p,
                speculation=self.speculation, stop=tuple(self.stop or ()),
            )  # fmt: skip
        except ValidationError as error:
            raise ValueError(describe(error)) from error
        except CheckpointNotFoundError as error:
            raise ValueError(str(error)) from error
        return self

    # What is loaded

    def open(self, progress: Progress | None = None, *, model: str | None = None) -> Engine:
        """Load the weights now, instead of at the first call, and return the shared engine.

        Args:
            progress: Told, in a few words, what is being waited for.
            model: Base to use instead of this model's own.

        Raises:
            ModelNotFoundError: Weights that are neither here nor reachable.
            EngineError: Models that cannot be loaded or combined.
        """
        from langchain_eft.engine.engine import open_engine  # imports torch

        with langchain_errors():
            return open_engine(self._recipe_of(model or self.model), self._config(), progress)

    async def _aopen(self, model: str | None = None) -> Engine:
        from langchain_eft.engine.engine import find_engine

        with langchain_errors():
            found = find_engine(self._recipe_of(model or self.model), self._config())
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
        preset = load_preset(name)
        if preset is None and not _names_a_model(name):
            raise CheckpointNotFoundError(
                f"model={name!r} is neither a preset ({known(preset_names())}), nor a local folder or .gguf "
                "file, nor a hub id of the form 'owner/name'."
            )
        base = preset.recipe if preset else Recipe(base=name)
        shared = next((delta.reference for delta in base.behaviors.values()), None)
        own = {
            key: delta if delta.reference or not shared else delta.model_copy(update={"reference": shared})
            for key, delta in self.behaviors.items()
        }
        return Recipe(
            base=base.base,
            behaviors={**base.behaviors, **own},
            chat_template=self.chat_template or base.chat_template,
            allow_negative_weights=self.allow_negative_weights,
        )

    def _config(self) -> EngineConfig:
        return EngineConfig(**{"device": self.device, "dtype": self.dtype, **self.engine_options})

    # What a call decodes

    def _mixture(self, model: str | None = None, mixture: dict[str, float] | None = None) -> Mixture:
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
                f"{known(self.behaviors)}."
            )
        return Mixture(weights=dict.fromkeys(self.behaviors, 1.0))

    def _sampling(self, **overrides: Any) -> SamplingParams:
        values = {name: overrides.get(name, getattr(self, name)) for name in _SAMPLING}
        if values["seed"] is None:
            del values["seed"]
        return SamplingParams(**values)

    def _request(
        self,
        engine: Engine,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        **overrides: Any,
    ) -> GenerationRequest:
        """One call as the engine's request: the call's parameters over the model's own."""
        _refuse(set(overrides) - _PER_CALL, _PER_CALL, "a call")
        prompt = encode(engine.tokenizer, messages)
        stop = self.stop if stop is None else stop
        strength, top_p, speculation = (
            overrides.get(name, getattr(self, name))
            for name in ("upscale_strength", "upscale_top_p", "speculation")
        )
        try:
            return GenerationRequest(
                prompt_ids=prompt,
                mixture=self._mixture(overrides.get("model"), overrides.get("mixture")),
                upscale_strength=strength,
                upscale_top_p=top_p,
                speculation=speculation,
                sampling=self._sampling(**{k: v for k, v in overrides.items() if k in _SAMPLING}),
                max_tokens=self._max_tokens(engine, len(prompt), overrides.get("max_tokens")),
                stop=tuple([stop] if isinstance(stop, str) else stop or ()),
            )
        except ValidationError as error:
            raise RequestError(describe(error)) from error

    def _max_tokens(self, engine: Engine, prompt_tokens: int, asked: int | None) -> int:
        if asked is not None:
            return asked
        if "max_tokens" in self.model_fields_set:
            return self.max_tokens
        return max(1, min(self.max_tokens, engine.window - prompt_tokens))

    # LangChain's four ways in

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(list(self._stream(messages, stop, **kwargs)))

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result([chunk async for chunk in self._astream(messages, stop, **kwargs)])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        engine = self.open(model=kwargs.get("model"))
        with langchain_errors():
            request = self._request(engine, messages, stop, **kwargs)
            for event in engine.stream(request, kwargs.get("timeout", self.timeout)):
                if isinstance(event, TextDelta) and not event.text:
                    continue
                chunk = self._chunk(event, request, kwargs.get("model"))
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        engine = await self._aopen(kwargs.get("model"))
        with langchain_errors():
            request = self._request(engine, messages, stop, **kwargs)
            async for event in engine.astream(request, kwargs.get("timeout", self.timeout)):
                if isinstance(event, TextDelta) and not event.text:
                    continue
                chunk = self._chunk(event, request, kwargs.get("model"))
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs in one engine batch, unless `max_concurrency` says otherwise."""
        # LangChain's own default is a few threads, which would leave most of the batch empty.
        configs = config if isinstance(config, list) else [config or {}] * len(inputs)
        configs = [{**c, "max_concurrency": c.get("max_concurrency") or len(inputs)} for c in configs]
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def _chunk(
        self, event: TextDelta | Finished, request: GenerationRequest, model: str | None
    ) -> ChatGenerationChunk:
        """An event as LangChain's chunk; everything but text comes once, on the last one."""
        if isinstance(event, TextDelta):
            return ChatGenerationChunk(message=AIMessageChunk(content=event.text))
        metadata = {
            "model_name": model or self.model,
            "model_provider": PROVIDER,
            "finish_reason": event.reason,
            "eft": {
                "mixture": dict(request.mixture.weights),
                "upscale_strength": request.upscale_strength,
                "upscale_top_p": request.upscale_top_p,
                "seed": request.sampling.seed,
                "drafted": event.drafted_tokens,
                "accepted": event.accepted_tokens,
                "acceptance_rate": event.acceptance_rate,
                "verify_passes": event.verify_passes,
                "tokens_per_second": round(event.tokens_per_second, 2),
                "time_to_first_token": round(event.time_to_first_token, 4),
            },
        }
        usage = UsageMetadata(
            input_tokens=event.prompt_tokens,
            output_tokens=event.completion_tokens,
            total_tokens=event.prompt_tokens + event.completion_tokens,
            input_token_details=InputTokenDetails(cache_read=event.cached_tokens),
        )
        message = AIMessageChunk(
            content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last"
        )
        return ChatGenerationChunk(message=message, generation_info={"finish_reason": event.reason})

    # What tracers, caches and token counters ask

    @property
    @override
    def _llm_type(self) -> str:
        return "eft-chat"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that changes the answer, so that caches never mix two recipes or mixtures."""
        return {
            **self.recipe.model_dump(mode="json"),
            **self._config().model_dump(include={"device", "dtype"}),
            "model": self.model,
            "mixture": dict(self.active_mixture.weights),
            **{name: getattr(self, name) for name in sorted(_SAMPLING)},
            **{
                name: getattr(self, name)
                for name in ("upscale_strength", "upscale_top_p", "max_tokens", "stop")
            },
        }

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider=PROVIDER,
            ls_model_type="chat",
            ls_model_name=kwargs.get("model") or self.model,
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop
        return params

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens, without a chat template."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        ids: list[int] = self.engine.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Exact length of the messages in the model's chat template, without the opening of an answer."""
        if tools:
            raise RequestError("tools cannot be counted: this model renders none yet. Leave `tools` out.")
        with langchain_errors():
            return len(encode(self.engine.tokenizer, messages, answer=False))


ChatEFT = EFTChatModel
"""`EFTChatModel` under LangChain's naming convention."""


def _names_a_model(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_dir() or path.is_file() or name.count("/") == 1


def _refuse(unknown: set[str], names: set[str] | frozenset[str], where: str) -> None:
    if unknown:
        guesses = [g for name in unknown for g in difflib.get_close_matches(name, names, 1)]
        hint = f" Did you mean {known(guesses)}?" if guesses else ""
        raise RequestError(f"Unknown parameter {known(unknown)} for {where}.{hint} Known are {known(names)}.")


def _result(chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
    """The chunks of a whole answer as one message."""
    last = chunks[-1].message
    message = AIMessage(
        content="".join(chunk.text for chunk in chunks),
        response_metadata=last.response_metadata,
        usage_metadata=last.usage_metadata if isinstance(last, AIMessageChunk) else None,
    )
    info = chunks[-1].generation_info
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])
