"""One call of the chat model: what the engine decodes for it, and how the answers are read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from langchain_eft.chat.answer_form import AnswerForm, Fork
from langchain_eft.chat.chunks import ChunkBuilder, chat_result
from langchain_eft.chat.grammars import after_reasoning
from langchain_eft.chat.messages import insert_system_message
from langchain_eft.chat.output_parser import OutputParser, Parser
from langchain_eft.chat.parameters import DecodingParameters, reseeded
from langchain_eft.chat.prompts import conversation_prompts
from langchain_eft.chat.response_template import ResponseTemplateParser, template_tokens
from langchain_eft.chat.structured_output import schema_instruction
from langchain_eft.chat.tool_formats import (
    END_THINK,
    THINK,
    ToolFormat,
    chat_template,
    detect_tool_format,
    reasons,
    visible_tokens,
)
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest

if TYPE_CHECKING:
    from langchain_eft.engine.base_engine import BaseEngine


@dataclass(frozen=True)
class CallOptions:
    """What a call asks, besides how its answers are decoded.

    Attributes:
        form: The form of an answer.
        n: Number of answers.
        top_logprobs: How many of the most probable tokens are reported at each position; None reports no
            log-probabilities.
        usage: Whether the last chunk of an answer counts its tokens.
        template_variables: Variables of the chat template.
        sanitize_control_tokens: Read special tokens in text as ordinary text.
    """

    form: AnswerForm
    n: int
    top_logprobs: int | None
    usage: bool
    template_variables: Mapping[str, Any]
    sanitize_control_tokens: bool


@dataclass(frozen=True)
class PreparedCall:
    """One call, ready for its engine.

    Attributes:
        engine: Decodes it.
        requests: What the engine decodes: one request for each of the `n` answers.
        fork: A choice that the model makes before the requests are decoded, or None.
        timeout: Seconds that an answer may take, or None for no limit.
        new_parser: Makes the parser of one answer.
        model_name: The base model, as the caller named it.
        usage: Whether the last chunk of an answer counts its tokens.
    """

    engine: BaseEngine
    requests: tuple[GenerationRequest, ...]
    fork: Fork | None
    timeout: float | None
    new_parser: Callable[[], Parser]
    model_name: str
    usage: bool

    @property
    def only_request(self) -> GenerationRequest:
        """The request of a stream.

        Raises:
            RequestError: The call asks for several answers.
        """
        if len(self.requests) > 1:
            raise RequestError(
                f"n={len(self.requests)} answers cannot be streamed: use n=1, or `invoke` and `generate`."
            )
        return self.requests[0]

    def generate(self) -> ChatResult:
        """Decode all answers, and return them whole."""
        call = self.decide()
        return call._whole(self.engine.generate(call.requests, call.timeout))

    async def agenerate(self) -> ChatResult:
        """As `generate`, without blocking the event loop."""
        call = await self.adecide()
        return call._whole(await self.engine.agenerate(call.requests, call.timeout))

    def stream(self) -> Iterator[ChatGenerationChunk]:
        """Decode the only answer, and yield its chunks.

        Raises:
            RequestError: The call asks for several answers.
        """
        call = self.decide()
        request = call.only_request
        builder = call.chunk_builder(request)
        for event in self.engine.stream(request, call.timeout):
            yield from builder.feed(event)

    async def astream(self) -> AsyncGenerator[ChatGenerationChunk, None]:
        """As `stream`, without blocking the event loop."""
        call = await self.adecide()
        request = call.only_request
        builder = call.chunk_builder(request)
        async with aclosing(self.engine.astream(request, call.timeout)) as events:
            async for event in events:
                for chunk in builder.feed(event):
                    yield chunk

    def decide(self) -> PreparedCall:
        """The call after its fork; without a fork it stays as it is."""
        return self.decided(self.engine.generate(self.probes(), self.timeout)) if self.fork else self

    async def adecide(self) -> PreparedCall:
        """As `decide`, without blocking the event loop."""
        return self.decided(await self.engine.agenerate(self.probes(), self.timeout)) if self.fork else self

    def probes(self) -> list[GenerationRequest]:
        """Requests for the first tokens of free answers, which show what the model chooses at the fork."""
        free = {"grammar": None, "stop": (), "top_logprobs": None, "trace": False}
        return [
            request.model_copy(
                update={
                    **free,
                    "max_tokens": min(len(request.answer_prefix) + Fork.PROBE_TOKENS, request.max_tokens),
                }
            )
            for request in self.requests
        ]

    def decided(self, beginnings: Sequence[Sequence[TextDelta | Finished]]) -> PreparedCall:
        """The call after the fork.

        Args:
            beginnings: The engine's events for each of the `probes`.
        """
        if self.fork is None:
            return self
        grammars = [self.fork.grammar(_text(events)) for events in beginnings]
        pairs = zip(self.requests, grammars, strict=True)
        return replace(
            self, requests=tuple(request.model_copy(update={"grammar": g}) for request, g in pairs)
        )

    def chunk_builder(self, request: GenerationRequest) -> ChunkBuilder:
        """What makes message chunks of the engine's events for one of the requests."""
        tokenizer = self.engine.tokenizer
        return ChunkBuilder(request, self.new_parser(), tokenizer, self.model_name, usage=self.usage)

    def _whole(self, answers: Sequence[Sequence[TextDelta | Finished]]) -> ChatResult:
        return chat_result([self.chunk_builder(request) for request in self.requests], answers)


def prepare_call(
    engine: BaseEngine,
    messages: Sequence[BaseMessage],
    decoding: DecodingParameters,
    options: CallOptions,
) -> PreparedCall:
    """Turn a conversation into requests.

    Args:
        engine: Decodes the call. Its tokenizer and recipe decide what the models read.
        messages: The conversation, oldest first.
        decoding: How the call is decoded.
        options: What else the call asks.

    Raises:
        RequestError: Messages, a schema or values that cannot be served.
    """
    tokenizer, form = engine.tokenizer, options.form
    tool_format = detect_tool_format(tokenizer, enforced=form.enforced)
    if form.shown and form.schema is not None:
        messages = insert_system_message(messages, schema_instruction(form.schema))
    prompts = conversation_prompts(
        tokenizer,
        engine.recipe,
        decoding.mixture,
        messages,
        tools=form.tools,
        tool_format=tool_format,
        options=options.template_variables,
        sanitize_control_tokens=options.sanitize_control_tokens,
        window=engine.window,
    )
    grammar = form.grammar(tool_format)
    if grammar is None and engine.holds_calls and not decoding.answer_prefix:
        grammar = form.default_grammar(tool_format)
    reading = _reading(tokenizer, prompts.main, form, tool_format, grammar)
    request = decoding.request(
        prompts,
        engine.max_output_tokens(*prompts.lengths),
        grammar=reading.grammar,
        visible_tokens=reading.visible_tokens,
        top_logprobs=options.top_logprobs,
    )
    return PreparedCall(
        engine=engine,
        requests=reseeded(request, options.n),
        fork=reading.fork,
        timeout=decoding.timeout,
        new_parser=reading.new_parser,
        model_name=decoding.model,
        usage=options.usage,
    )


class _Reading(NamedTuple):
    """How an answer is constrained, and how its text is read.

    Attributes:
        grammar: What the answer must look like, or None.
        fork: A choice that comes before the grammar, or None.
        visible_tokens: Special tokens that are part of the text.
        new_parser: Makes the parser of one answer.
    """

    grammar: str | None
    fork: Fork | None
    visible_tokens: frozenset[int]
    new_parser: Callable[[], Parser]


def _reading(
    tokenizer: Any, prompt: tuple[int, ...], form: AnswerForm, tool_format: ToolFormat, grammar: str | None
) -> _Reading:
    if tool_format.name == "native":
        new_parser = partial(ResponseTemplateParser, tokenizer, tokenizer.decode(prompt), form.tools)
        return _Reading(None, None, template_tokens(tokenizer), new_parser)
    reasoning = reasons(chat_template(tokenizer))
    opened = reasoning and tokenizer.decode(prompt[-16:]).rstrip().endswith(THINK)
    if grammar and reasoning:
        grammar = after_reasoning(tool_format, grammar, opened=opened)
    markers = (*(tool_format.markers if form.tools else ()), *((THINK, END_THINK) if reasoning else ()))
    return _Reading(
        grammar,
        # A reasoning model chooses while it reasons: one grammar for both choices is enough.
        None if reasoning else form.fork(tool_format),
        visible_tokens(tokenizer, markers),
        partial(
            OutputParser,
            tool_format,
            tools=bool(form.tools),
            reasoning=reasoning,
            forced=form.forced,
            thinking=opened,
        ),
    )


def _text(events: Sequence[TextDelta | Finished]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))
