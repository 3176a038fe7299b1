"""EFTChatModel: emulated fine-tuning as a LangChain chat model."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    SystemMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field
from typing_extensions import override

from langchain_eft import structured
from langchain_eft.chunks import ChunkBuilder, total_usage
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.request import Finished, GenerationRequest, TextDelta
from langchain_eft.errors import langchain_errors
from langchain_eft.messages import encode
from langchain_eft.output_parser import OutputParser
from langchain_eft.schemas import schema_dict
from langchain_eft.settings import PER_CALL, EFTSettings, refuse_unknown
from langchain_eft.structured_output import (
    Method,
    instructions,
    response_format_of,
    structured_runnable,
)
from langchain_eft.tools import ToolFormat, tool_dicts, tool_format, visible_tokens

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_CALL = PER_CALL | {
    "logprobs", "n", "output_version", "parallel_tool_calls", "response_format", "stream_options",
    "stream_usage", "strict", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
_REQUEST = PER_CALL - {"stop", "stream", "timeout"}


@dataclass(frozen=True)
class _Call:
    """One call: what is decoded, and how its answer is read.

    Attributes:
        request: What the engine decodes.
        timeout: Seconds that the answer may take.
        builder: Makes the answer's chunks.
    """

    request: GenerationRequest
    timeout: float | None
    builder: ChunkBuilder


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

    streaming: bool = False
    """Let `invoke` stream internally, for callbacks that want every token."""

    stream_usage: bool = True
    """Count tokens in streams too, on the last chunk."""

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
            calls = self._calls(engine, messages, stop, **kwargs)
            # Every answer has begun before the first is read to its end, so they decode together.
            streams = [engine.stream(call.request, call.timeout) for call in calls]
            begun = [[next(stream)] for stream in streams]
            events = [[*first, *rest] for first, rest in zip(begun, streams, strict=True)]
        return _result(calls, events)

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
            calls = self._calls(engine, messages, stop, **kwargs)
            streams = [engine.astream(call.request, call.timeout) for call in calls]
            begun = [[await anext(stream)] for stream in streams]
            events = [
                [*first, *[event async for event in rest]] for first, rest in zip(begun, streams, strict=True)
            ]
        return _result(calls, events)

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
            call = _only(self._calls(engine, messages, stop, **kwargs))
            for event in engine.stream(call.request, call.timeout):
                for chunk in call.builder.feed(event):
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
            call = _only(self._calls(engine, messages, stop, **kwargs))
            async for event in engine.astream(call.request, call.timeout):
                for chunk in call.builder.feed(event):
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

    def _calls(
        self, engine: Engine, messages: Sequence[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> list[_Call]:
        """One call for each of the `n` answers; they differ in their seeds only."""
        refuse_unknown(set(kwargs) - _CALL, _CALL, "a call")
        count = kwargs.get("n") or self.n
        first = self._request(engine, messages, stop, **kwargs)
        return [self._call(engine, _reseeded(first, i), **kwargs) for i in range(count)]

    def _request(
        self, engine: Engine, messages: Sequence[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> GenerationRequest:
        tools, choice = _offered(kwargs)
        spelling = tool_format(engine.tokenizer)
        grammar, instructions = _constraint(spelling, tools, choice, kwargs)
        logprobs = kwargs.get("logprobs", self.logprobs)
        return self.generation_request(
            engine,
            encode(engine.tokenizer, [*instructions, *messages], tools=tools or None),
            stop,
            grammar=grammar,
            visible_tokens=frozenset(visible_tokens(engine.tokenizer, spelling.markers) if tools else ()),
            top_logprobs=(kwargs.get("top_logprobs", self.top_logprobs) or 0) if logprobs else None,
            **{name: value for name, value in kwargs.items() if name in _REQUEST},
        )

    def _call(self, engine: Engine, request: GenerationRequest, **kwargs: Any) -> _Call:
        tools, choice = _offered(kwargs)
        options = kwargs.get("stream_options") or {}
        parser = OutputParser(
            tool_format(engine.tokenizer),
            tools=bool(tools),
            reasoning="<think>" in str(engine.tokenizer.chat_template),
            forced=choice not in ("auto", "none"),
        )
        builder = ChunkBuilder(
            request,
            parser,
            engine.tokenizer,
            kwargs.get("model") or self.model,
            usage=options.get("include_usage", kwargs.get("stream_usage", self.stream_usage)),
        )
        return _Call(request, kwargs.get("timeout", self.timeout), builder)

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
            parallel_tool_calls: Several calls in one answer. Where a call is forced, the default is one.
            response_format: A schema that the answer follows where it is no call.
            kwargs: Further parameters of every call.

        Raises:
            RequestError: A tool without a name, two of one name, or a choice that is not among them.
        """
        with langchain_errors():
            # Two tools of one name are an error of the call: LangChain's suite binds such, and never calls.
            specs = [spec for tool in tools for spec in tool_dicts([tool])]
            choice = structured.normalize_choice(tool_choice, specs)
        if response_format is not None:
            kwargs["response_format"] = response_format_of(response_format)
        chosen = {"tool_choice": choice, "strict": strict, "parallel_tool_calls": parallel_tool_calls}
        given = {name: value for name, value in chosen.items() if value is not None}
        return self.bind(tools=specs, **given, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema, which is enforced while decoding.

        Args:
            schema: A pydantic class (v1 or v2), a TypedDict, or a JSON schema or OpenAI function as dict.
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
        own = {name: getattr(self, name) for name in ("n", "logprobs", "top_logprobs")}
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
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
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
        """Exact length of messages and tools in the model's chat template, without an answer's opening."""
        with langchain_errors():
            rendered = tool_dicts(tools) if tools else None
            return len(encode(self.engine.tokenizer, messages, answer=False, tools=rendered))


ChatEFT = EFTChatModel
"""`EFTChatModel` under LangChain's naming convention."""


def _offered(kwargs: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The tools that a call may use, and the choice among them."""
    tools = tool_dicts(kwargs.get("tools") or ())
    choice = structured.normalize_choice(kwargs.get("tool_choice"), tools)
    return ([] if choice == "none" else tools), choice


def _constraint(
    spelling: ToolFormat, tools: list[dict[str, Any]], choice: str, kwargs: dict[str, Any]
) -> tuple[str | None, list[SystemMessage]]:
    """The grammar that an answer has to follow, and what has to be said to the model about it."""
    wanted = response_format_of(kwargs["response_format"]) if kwargs.get("response_format") else None
    parallel = kwargs.get("parallel_tool_calls")
    if choice not in ("auto", "none"):
        return structured.calls_grammar(spelling, tools, choice, parallel=bool(parallel)), []
    if wanted and wanted["type"] == "json_object":
        return structured.json_grammar(), []
    if wanted:
        schema = schema_dict(wanted)
        said = [SystemMessage(instructions(schema))]
        if tools:
            return structured.union_grammar(spelling, tools, schema, parallel=parallel is not False), said
        return structured.schema_grammar(schema), said
    if tools and (kwargs.get("strict") or parallel is False):
        return structured.strict_grammar(spelling, tools, parallel=parallel is not False), []
    return None, []


def _reseeded(request: GenerationRequest, step: int) -> GenerationRequest:
    seed = (request.sampling.seed + step) % 2**63
    return request.model_copy(update={"sampling": request.sampling.model_copy(update={"seed": seed})})


def _only(calls: Sequence[_Call]) -> _Call:
    if len(calls) > 1:
        raise RequestError(f"n={len(calls)} answers cannot be streamed: use n=1, or `invoke` and `generate`.")
    return calls[0]


def _result(calls: Sequence[_Call], events: Sequence[Sequence[TextDelta | Finished]]) -> ChatResult:
    """Whole answers as messages."""
    messages = []
    for call, happened in zip(calls, events, strict=True):
        chunks = [chunk.message for event in happened for chunk in call.builder.feed(event)]
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
