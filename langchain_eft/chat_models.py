"""EFTChatModel: emulated fine-tuning as a LangChain chat model.

What happens to the messages of a call:

1. `chat/parameters.py` checks the call's parameters; fields of the model stand in for those left out.
2. `chat/answer_form.py` reads tools, tool choice and response format, and makes a grammar of them.
3. `chat/messages.py` renders the messages with the chat template. `chat/prompts.py` adds the prompts that
   some models of the recipe read instead.
4. `chat/prepare.py` joins all this in a `PreparedCall`: the engine's requests, and how answers are read.

What happens to the engine's events:

1. `chat/output_parser.py` (or `chat/response_template.py`) separates content, reasoning and tool calls.
2. `chat/chunks.py` makes message chunks of them, with usage, log-probabilities, trace and statistics.
3. `chat/content_blocks.py` shows messages as LangChain's standard content blocks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field, model_validator
from typing_extensions import override

from langchain_eft.base import BaseEFT
from langchain_eft.chat.answer_form import AnswerForm, normalize_form
from langchain_eft.chat.configurable import refuse_ignored
from langchain_eft.chat.control_tokens import ControlTokens
from langchain_eft.chat.media import UnsupportedContent, readable
from langchain_eft.chat.messages import check_blocks, encode
from langchain_eft.chat.parameters import (
    CHAT_PARAMETERS,
    answer_count,
    options,
    refuse_unknown,
    reported_logprobs,
)
from langchain_eft.chat.prepare import CallOptions, PreparedCall, prepare_call
from langchain_eft.chat.reasoning_effort import effort_variables
from langchain_eft.chat.structured_output import Method, structured_runnable
from langchain_eft.chat.tool_formats import chat_template
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine_user import field_errors
from langchain_eft.errors import langchain_errors

_NO_STREAM_OPTIONS: dict[str, Any] = {"stream_usage": True, "stream_options": None}
"""Whole answers always count their tokens: these options concern streams alone."""


class EFTChatModel(BaseEFT, BaseChatModel):
    """Chat with an emulated fine-tuned model.

    Emulated fine-tuning adds the behaviors of small fine-tuned models to the knowledge of a large base model,
    token by token while decoding (Mitchell et al. 2023): `log p = L + sum_i w_i (F_i - S_i)`. The large model
    is never trained.

    Building an `EFTChatModel` loads nothing. The first call loads the weights, and every model that names the
    same recipe shares them.

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
    """Report the log-probability of every token in `response_metadata["logprobs"]`: that of the formula,
    before temperature and filters."""

    top_logprobs: int | None = None
    """With `logprobs`, also report this many of the most probable tokens at every position."""

    n: int = Field(default=1, ge=1)
    """Answers per call. The prompt is read once for all of them; `generate` returns them all."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, such as `{"enable_thinking": False}` where it has such a switch."""

    reasoning_effort: str | None = None
    """How much the model reasons: one of `profile["reasoning_effort_levels"]`, where its chat template has a
    variable for that. `none` is not at all. Its values in `chat_template_kwargs` go first."""

    unsupported_content: UnsupportedContent = "describe"
    """What happens to images and other media in messages, which the models cannot read: `describe` puts a
    line of text in their place, such as "[image, image/png, 24 kB: left out, because this model reads text
    only]"; `error` refuses the call."""

    strict: bool | None = None
    """Hold the calls that the model makes by its own choice to their schema: once an answer begins a call,
    its name is that of a tool, and its arguments follow that tool's schema. None does so where decoding can,
    True refuses tools for which it cannot, and False leaves calls free."""

    streaming: bool = False
    """Let `invoke` stream internally, for callbacks that want every token."""

    stream_usage: bool = True
    """Count tokens in streams too, on the last chunk."""

    sanitize_control_tokens: bool = True
    """Read special tokens such as `<|im_end|>` in the text of messages, tools and documents as ordinary text.
    With False they are control tokens, by which a user's text, or a web page that a tool returns, can end its
    turn and open another."""

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        with field_errors():
            reported_logprobs(self.logprobs, self.top_logprobs)
        return self

    # LangChain's four ways in

    @override
    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **options: Any
    ) -> AIMessage:
        self._check_config(config)
        return super().invoke(input, config, **options)

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **options: Any
    ) -> AIMessage:
        self._check_config(config)
        return await super().ainvoke(input, config, **options)

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[AIMessageChunk]:
        self._check_config(config)
        return super().stream(input, config, **options)

    @override
    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[AIMessageChunk]:
        self._check_config(config)
        return super().astream(input, config, **options)

    def _check_config(self, config: RunnableConfig | None) -> None:
        with langchain_errors():
            refuse_ignored(self, config)

    @override
    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        prompt = super()._convert_input(model_input)
        with langchain_errors():  # LangChain's own look at content blocks raises TypeError
            for message in prompt.to_messages():
                check_blocks(message)
        return prompt

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            return self._prepare(messages, stop, {**kwargs, **_NO_STREAM_OPTIONS}).generate()

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            parameters = {**kwargs, **_NO_STREAM_OPTIONS}
            call = await asyncio.to_thread(self._prepare, messages, stop, parameters)
            return await call.agenerate()

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with langchain_errors():
            for chunk in self._prepare(messages, stop, kwargs).stream():
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
        with langchain_errors():
            call = await asyncio.to_thread(self._prepare, messages, stop, kwargs)
            async with aclosing(call.astream()) as chunks:
                async for chunk in chunks:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    # Batches: as many calls at a time as keep the engine busy

    @override
    def batch(self, inputs: list[LanguageModelInput], config: Any = None, **options: Any) -> list[AIMessage]:
        return super().batch(inputs, self.paced(config, options.get("n", self.n)), **options)

    @override
    async def abatch(
        self, inputs: list[LanguageModelInput], config: Any = None, **options: Any
    ) -> list[AIMessage]:
        return await super().abatch(inputs, self.paced(config, options.get("n", self.n)), **options)

    @override
    def batch_as_completed(
        self, inputs: Sequence[LanguageModelInput], config: Any = None, **options: Any
    ) -> Iterator[tuple[int, Any]]:
        return super().batch_as_completed(inputs, self.paced(config, options.get("n", self.n)), **options)

    @override
    def abatch_as_completed(
        self, inputs: Sequence[LanguageModelInput], config: Any = None, **options: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        return super().abatch_as_completed(inputs, self.paced(config, options.get("n", self.n)), **options)

    # How a call is prepared

    def prepare_call(
        self, messages: Sequence[BaseMessage], stop: list[str] | None = None, **parameters: Any
    ) -> PreparedCall:
        """What a call with these messages and parameters decodes, without decoding it.

        Args:
            messages: The conversation, oldest first.
            stop: Stop strings of the call; None leaves the model's own.
            parameters: Parameters of the call, as `invoke` takes them.

        Raises:
            ModelInvalidRequestError: Messages or parameters that cannot be served.
        """
        with langchain_errors():
            return self._prepare(messages, stop, parameters)

    def _prepare(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, parameters: Mapping[str, Any]
    ) -> PreparedCall:
        refuse_unknown(parameters, CHAT_PARAMETERS, "a call")
        source = self._source(parameters.get("model"))
        engine = source.open()
        names = ("n", "strict", "logprobs", "top_logprobs", "stream_usage")
        given = {**{name: getattr(self, name) for name in names}, **parameters}
        call_options = CallOptions(
            form=AnswerForm.of(given),
            n=answer_count(given["n"]),
            top_logprobs=reported_logprobs(given["logprobs"], given["top_logprobs"]),
            usage=options("stream_options", given.get("stream_options")).get(
                "include_usage", given["stream_usage"]
            ),
            template_variables=self.template_variables(engine.tokenizer, parameters),
            sanitize_control_tokens=self.sanitize_control_tokens,
        )
        decoding = self.decoding_parameters(stop, parameters, source)
        return prepare_call(engine, readable(messages, self.unsupported_content), decoding, call_options)

    def template_variables(
        self, tokenizer: Any, parameters: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """The variables of the chat template.

        Args:
            tokenizer: The engine's.
            parameters: Parameters of a call.

        Raises:
            RequestError: Variables that are no dictionary, or an effort that the template cannot ask for.
        """
        template = chat_template(tokenizer)
        return {
            **effort_variables(template, self.reasoning_effort),
            **self.chat_template_kwargs,
            **effort_variables(template, parameters.get("reasoning_effort")),
            **options("chat_template_kwargs", parameters.get("chat_template_kwargs")),
        }

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
                `none`. Decoding enforces the choice.
            strict: Under `auto`, hold the calls that the model makes to their schema; None leaves it to the
                model's own `strict`.
            parallel_tool_calls: Several calls in one answer. Where a call is forced, the default is one;
                under `auto`, `False` enforces at most one call, and its schema.
            response_format: A schema of answers that are not calls.
            kwargs: Further parameters of every call.

        Raises:
            RequestError: A tool without a name, a choice that names no tool, or a schema that cannot be read.
        """
        form = {
            "tools": tools,
            "tool_choice": tool_choice,
            "strict": strict,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
        }
        with langchain_errors():
            normalized = normalize_form(form)
        return self.bind(**{name: value for name, value in normalized.items() if value is not None}, **kwargs)

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
        """Answer with an object of a schema, which decoding enforces.

        Args:
            schema: A pydantic class (v1 or v2), a TypedDict, or a JSON schema or OpenAI function as a
                dictionary. `json_mode` needs none.
            method: `function_calling` shows the schema to the model as a tool, `json_schema` as an
                instruction. `json_mode` only enforces it, or any object without one; the prompt has to
                describe it.
            include_raw: Return a dictionary with `raw`, `parsed` and `parsing_error`.
            strict: Has no effect, because schemas are always enforced; hosted models take it.
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
        return {
            **self.identity(),
            "n": self.n,
            "strict": self.strict,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
            "chat_template_kwargs": self.chat_template_kwargs,
            "reasoning_effort": self.reasoning_effort,
            "sanitize_control_tokens": self.sanitize_control_tokens,
            "unsupported_content": self.unsupported_content,
        }

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
        return self._source().profile

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens, without a chat template."""
        custom = self.custom_get_token_ids
        if custom is not None:
            return custom(text)
        control = ControlTokens(self.tokenizer, sanitize=self.sanitize_control_tokens)
        with langchain_errors():
            return list(control.text_ids(text))

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Exact number of tokens of messages and tools in the chat template, without an answer's opening.

        With `custom_get_token_ids` it is LangChain's own estimate.
        """
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        return len(self.message_token_ids(messages, tools))

    def message_token_ids(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] | None = None,
        *,
        answer: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        window: int | None = None,
    ) -> list[int]:
        """The messages and tools in the chat template, as the models read them.

        Args:
            messages: The conversation, oldest first.
            tools: Tools that the model may call.
            answer: Open the assistant's turn at the end.
            chat_template_kwargs: Variables of the chat template, beside the model's own.
            window: Tokens beyond which they need not all be counted; None counts any number.

        Raises:
            ContextWindowError: More than twice the tokens of `window`.
            RequestError: Messages or tools that cannot be rendered.
        """
        tokenizer = self.tokenizer
        with langchain_errors():
            ids = encode(
                tokenizer,
                readable(messages, self.unsupported_content),
                answer=answer,
                tools=tool_dicts(tools or ()),
                options=self.template_variables(tokenizer, {"chat_template_kwargs": chat_template_kwargs}),
                sanitize_control_tokens=self.sanitize_control_tokens,
                window=window,
            )
            return list(ids)


ChatEFT = EFTChatModel
"""Alias of `EFTChatModel` that follows LangChain's naming convention."""
