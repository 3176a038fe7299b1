"""EFTChatModel: emulated fine-tuning as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field, model_validator
from typing_extensions import override

from langchain_eft.base import PER_CALL, EFTSettings, refuse_unknown
from langchain_eft.chat import structured_output
from langchain_eft.chat.chunks import ChunkBuilder, total_usage
from langchain_eft.chat.grammars import normalize_choice
from langchain_eft.chat.messages import encode
from langchain_eft.chat.prepare import Fork, Plan, plan
from langchain_eft.chat.structured_output import Method, structured_runnable
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.errors import langchain_errors

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_CALL = PER_CALL | {
    "chat_template_kwargs", "logprobs", "n", "output_version", "parallel_tool_calls", "response_format",
    "stream_options", "stream_usage", "strict", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
_REQUEST = PER_CALL - {"stop", "stream", "timeout"}
_WHOLE: dict[str, Any] = {"stream_usage": True, "stream_options": None}
"""What streams alone have a say in does not concern whole answers."""


@dataclass(frozen=True)
class _Call:
    """One call: what is decoded, and how its answers are read.

    Attributes:
        requests: What the engine decodes, one for each of the `n` answers.
        fork: A choice that comes before the grammar, or None.
        timeout: Seconds that an answer may take.
        builder: Makes the chunks of one answer to a request.
    """

    requests: list[GenerationRequest]
    fork: Fork | None
    timeout: float | None
    builder: Callable[[GenerationRequest], ChunkBuilder]

    def free(self) -> list[GenerationRequest]:
        """The beginnings of free answers, which show the choice."""
        free = {"grammar": None, "stop": (), "top_logprobs": None, "trace": False}
        return [
            request.model_copy(update={**free, "max_tokens": min(Fork.TOKENS, request.max_tokens)})
            for request in self.requests
        ]

    def decided(self, beginnings: Sequence[Sequence[TextDelta | Finished]]) -> _Call:
        """The call with the choice that those beginnings show."""
        if self.fork is None:
            return self
        grammars = [self.fork.grammar(_text(beginning)) for beginning in beginnings]
        pairs = zip(self.requests, grammars, strict=True)
        return replace(self, requests=[r.model_copy(update={"grammar": g}) for r, g in pairs])


class EFTChatModel(EFTSettings, BaseChatModel):
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

    logprobs: bool = False
    """Report the log-probability of every token in `response_metadata["logprobs"]`: the formula's own, before
    temperature and filters."""

    top_logprobs: int | None = None
    """With `logprobs`, also those of this many of the most probable tokens at every position."""

    n: int = Field(default=1, ge=1)
    """Answers per call, all on one reading of the prompt; `generate` returns them all."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, such as `{"enable_thinking": False}` where it has such a switch."""

    streaming: bool = False
    """Let `invoke` stream internally, for callbacks that want every token."""

    stream_usage: bool = True
    """Count tokens in streams too, on the last chunk."""

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        _top_logprobs(self.logprobs, self.top_logprobs)
        return self

    # LangChain's four ways in

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine = self.open(model=kwargs.get("model"))
        with langchain_errors():
            call = _decided(engine, self._call(engine, messages, stop, **{**kwargs, **_WHOLE}))
            return _result(call, engine.generate(call.requests, call.timeout))

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        engine = await self._aopen(kwargs.get("model"))
        with langchain_errors():
            call = await asyncio.to_thread(self._call, engine, messages, stop, **{**kwargs, **_WHOLE})
            call = await _adecided(engine, call)
            return _result(call, await engine.agenerate(call.requests, call.timeout))

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
            call = _decided(engine, self._call(engine, messages, stop, **kwargs))
            request = _only(call.requests)
            builder = call.builder(request)
            for event in engine.stream(request, call.timeout):
                for chunk in builder.feed(event):
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
            call = await asyncio.to_thread(self._call, engine, messages, stop, **kwargs)
            call = await _adecided(engine, call)
            request = _only(call.requests)
            builder = call.builder(request)
            async for event in engine.astream(request, call.timeout):
                for chunk in builder.feed(event):
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

    # What a call decodes

    def _call(
        self, engine: Engine, messages: Sequence[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> _Call:
        """A call's parameters over the model's own."""
        refuse_unknown(set(kwargs) - _CALL, _CALL, "a call")
        template = {**self.chat_template_kwargs, **(kwargs.get("chat_template_kwargs") or {})}
        planned = plan(engine.tokenizer, engine.recipe, self.call_mixture(kwargs), messages, kwargs, template)
        request = self._request(engine, planned, stop, **kwargs)
        options = kwargs.get("stream_options") or {}
        return _Call(
            requests=[_reseeded(request, i) for i in range(_answers(kwargs.get("n", self.n)))],
            fork=planned.fork,
            timeout=self.call_timeout(kwargs),
            builder=lambda request: ChunkBuilder(
                request,
                planned.parser(),
                engine.tokenizer,
                kwargs.get("model") or self.model,
                usage=options.get("include_usage", kwargs.get("stream_usage", self.stream_usage)),
            ),
        )

    def _request(
        self, engine: Engine, planned: Plan, stop: list[str] | None, **kwargs: Any
    ) -> GenerationRequest:
        return self.generation_request(
            engine,
            planned.prompt_ids,
            stop,
            contexts=planned.contexts,
            grammar=planned.grammar,
            visible_tokens=planned.visible_tokens,
            top_logprobs=_top_logprobs(
                kwargs.get("logprobs", self.logprobs), kwargs.get("top_logprobs", self.top_logprobs)
            ),
            **{name: value for name, value in kwargs.items() if name in _REQUEST},
        )

    # Tools and schemas

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: dict[str, Any] | type | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: Functions, LangChain tools, classes, or schemas as dictionaries.
            tool_choice: `auto` (the model decides), `any` or `required` (some tool), a tool's name, or
                `none`. What is chosen here is enforced while decoding, not asked for.
            strict: Under `auto`, enforce every call's schema as well.
            parallel_tool_calls: Several calls in one answer. Where a call is forced, the default is one;
                under `auto`, `False` enforces at most one, and its schema.
            response_format: A schema that the answer follows where it is no call.
            kwargs: Further parameters of every call.

        Raises:
            RequestError: A tool without a name, two of one name, or a choice that is not among them.
        """
        with langchain_errors():
            # Two tools of one name are an error of the call: LangChain's suite binds such, and never calls.
            specs = [spec for tool in tools for spec in tool_dicts([tool])]
            choice = normalize_choice(tool_choice, specs)
        if response_format is not None:
            kwargs["response_format"] = structured_output.response_format(response_format)
        chosen = {"tool_choice": choice, "strict": strict, "parallel_tool_calls": parallel_tool_calls}
        given = {name: value for name, value in chosen.items() if value is not None}
        return self.bind(tools=specs, **given, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema, which is enforced while decoding.

        Args:
            schema: A pydantic class (v1 or v2), a TypedDict, or a JSON schema or OpenAI function as dict;
                `json_mode` does without.
            method: `function_calling` shows the schema as a tool, `json_schema` as an instruction;
                `json_mode` enforces an object of any kind and leaves the instruction to the prompt.
            include_raw: Return a dictionary with `raw`, `parsed` and `parsing_error`.
            strict: Accepted for interchangeability with hosted models: schemas are always enforced.
            kwargs: Further parameters of every call.

        Raises:
            RequestError: A schema that cannot be read.
        """
        with langchain_errors():
            return structured_runnable(self, schema, method, include_raw, strict, **kwargs)

    # What tracers, caches and token counters ask

    @property
    @override
    def _llm_type(self) -> str:
        return "eft-chat"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        own = {
            name: getattr(self, name) for name in ("n", "logprobs", "top_logprobs", "chat_template_kwargs")
        }
        return {**self.identity(), **own}

    @override
    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        outputs = [output for output in llm_outputs if output]
        total: Counter[str] = Counter()
        for output in outputs:
            total.update(output["token_usage"])
        return {**outputs[0], "token_usage": dict(total)} if outputs else {}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.tracing_params("chat", stop, **kwargs)

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            name=self.model,
            open_weights=True,
            text_inputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            temperature=True,
        )
        window = self.known_window()
        return profile if window is None else {**profile, "max_input_tokens": window}

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens, without a chat template."""
        own = self.custom_get_token_ids
        return self.text_ids(text) if own is None else own(text)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Exact length of messages and tools in the model's chat template, without an answer's opening.

        With `custom_get_token_ids` it is LangChain's own estimate over that.
        """
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        with langchain_errors():
            rendered = tool_dicts(tools) if tools else None
            template = self.chat_template_kwargs
            return len(encode(self.tokenizer, messages, answer=False, tools=rendered, options=template))


ChatEFT = EFTChatModel
"""`EFTChatModel` under LangChain's naming convention."""


def _reseeded(request: GenerationRequest, step: int) -> GenerationRequest:
    seed = (request.sampling.seed + step) % 2**63
    return request.model_copy(update={"sampling": request.sampling.model_copy(update={"seed": seed})})


def _decided(engine: Engine, call: _Call) -> _Call:
    return call.decided(engine.generate(call.free(), call.timeout)) if call.fork else call


async def _adecided(engine: Engine, call: _Call) -> _Call:
    return call.decided(await engine.agenerate(call.free(), call.timeout)) if call.fork else call


def _text(events: Sequence[TextDelta | Finished]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _answers(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise RequestError(f"n={n!r} is no number of answers: give 1 or more.")
    return n


def _top_logprobs(logprobs: bool, top: int | None) -> int | None:  # noqa: FBT001
    """How many of the most probable tokens are reported beside each token; None reports nothing."""
    if top is not None and not logprobs:
        raise RequestError(
            f"top_logprobs={top} reports nothing without logprobs=True: set it, or leave both."
        )
    return (top or 0) if logprobs else None


def _only(requests: Sequence[GenerationRequest]) -> GenerationRequest:
    if len(requests) > 1:
        raise RequestError(
            f"n={len(requests)} answers cannot be streamed: use n=1, or `invoke` and `generate`."
        )
    return requests[0]


def _result(call: _Call, events: Sequence[Sequence[TextDelta | Finished]]) -> ChatResult:
    """Whole answers as messages."""
    messages = []
    for request, happened in zip(call.requests, events, strict=True):
        builder = call.builder(request)
        chunks = [chunk.message for event in happened for chunk in builder.feed(event)]
        merged = add_ai_message_chunks(*cast("list[AIMessageChunk]", chunks))
        messages.append(cast("AIMessage", message_chunk_to_message(merged)))
    usages = [message.usage_metadata for message in messages if message.usage_metadata]
    return ChatResult(
        generations=[
            ChatGeneration(
                message=message,
                generation_info={"finish_reason": message.response_metadata["finish_reason"]},
            )
            for message in messages
        ],
        llm_output={
            "model_name": messages[0].response_metadata["model_name"],
            "token_usage": total_usage(usages, prompts=1),
        },
    )
