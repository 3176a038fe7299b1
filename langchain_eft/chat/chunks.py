"""The engine's events as LangChain's message chunks, messages and metadata."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk, message_chunk_to_message
from langchain_core.messages.ai import (
    InputTokenDetails,
    OutputTokenDetails,
    UsageMetadata,
    add_ai_message_chunks,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.output_parser import Content, ParsedPart, Parser, Reasoning, ToolCallPart
from langchain_eft.engine.decoding.answer_text import token_bytes
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.trace.writer import TraceWriter


class ChunkBuilder:
    """Builds the chunks of one answer.

    Every chunk carries what its round adds: text, reasoning, tool calls, log-probabilities, trace. The last
    chunk carries everything that is said once, such as usage and the finish reason.

    Args:
        request: The engine's request.
        parser: Separates text, reasoning and tool calls.
        tokenizer: Decodes the single tokens of log-probabilities and traces.
        model_name: The base model, as the caller named it.
        usage: Whether the last chunk counts tokens.
    """

    def __init__(
        self,
        request: GenerationRequest,
        parser: Parser,
        tokenizer: Any,
        model_name: str,
        *,
        usage: bool = True,
    ) -> None:
        self._request = request
        self._parser = parser
        self._tokenizer = tokenizer
        self._model_name = model_name
        self._usage = usage
        self._trace = TraceWriter(tokenizer)
        self._has_calls = False
        self._pieces: list[str] = []  # text of each token so far
        self._thoughts: list[str] = []  # blocks of reasoning
        self._thinking = False

    def feed(self, event: TextDelta | Finished) -> Iterator[ChatGenerationChunk]:
        """The chunks of an event; none while nothing can be shown yet."""
        if isinstance(event, TextDelta):
            self._pieces += event.pieces
            yield from self._chunk(self._parser.feed(event.text), event)
        else:
            yield from self._chunk(self._parser.flush(cut=event.reason == "length"), None)
            yield self._last_chunk(event)

    def _chunk(self, parts: Sequence[ParsedPart], event: TextDelta | None) -> Iterator[ChatGenerationChunk]:
        logprobs = self._logprobs(event) if event else []
        trace = self._trace.write(event) if event else {}
        if not parts and not logprobs and not trace:
            return
        calls = _call_chunks([part for part in parts if isinstance(part, ToolCallPart)])
        self._has_calls = self._has_calls or bool(calls)
        reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
        self._collect_thoughts(parts)
        metadata: dict[str, Any] = {"model_provider": PROVIDER, **trace}
        if logprobs:
            metadata["logprobs"] = {"content": logprobs}
        message = AIMessageChunk(
            content="".join(part.text for part in parts if isinstance(part, Content)),
            tool_call_chunks=calls,
            additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
            response_metadata=metadata,
        )
        yield ChatGenerationChunk(message=message)

    def _last_chunk(self, event: Finished) -> ChatGenerationChunk:
        reason = "tool_calls" if self._has_calls and event.reason == "stop" else event.reason
        metadata = {
            "model_provider": PROVIDER,
            "model_name": self._model_name,
            "finish_reason": reason,
            "normalized_finish_reason": "tool_call" if reason == "tool_calls" else reason,
            "finish_state": "complete",  # never suspended, to be resumed by another call
            "eft": statistics(self._request, event),
        }
        message = AIMessageChunk(
            content="",
            response_metadata=metadata,
            usage_metadata=usage(event, self._reasoning_tokens()) if self._usage else None,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info={"finish_reason": reason})

    def _collect_thoughts(self, parts: Sequence[ParsedPart]) -> None:
        for part in parts:
            if isinstance(part, Reasoning):
                self._thoughts += [] if self._thinking else [""]
                self._thoughts[-1] += part.text
            self._thinking = isinstance(part, Reasoning)

    def _reasoning_tokens(self) -> int | None:
        """Tokens drawn up to the end of the reasoning; None where there was none."""
        if not self._thoughts:
            return None
        text, end = "".join(self._pieces), 0
        for block in self._thoughts:
            end = text.find(block, end) + len(block)
        lengths = list(accumulate(map(len, self._pieces)))
        return max(bisect_left(lengths, end) + 1 - len(self._request.answer_prefix), 0)

    def _logprobs(self, event: TextDelta) -> list[dict[str, Any]]:
        """Log-probabilities in OpenAI's form, each with its `token_id`."""
        return [
            {
                **self._entry(token, entry.logprob),
                "top_logprobs": [self._entry(*alternative) for alternative in entry.top],
            }
            for token, entry in zip(event.tokens, event.logprobs, strict=False)
        ]

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text: str = self._tokenizer.decode([token])
        as_bytes = list(token_bytes(self._tokenizer, token))
        return {"token": text, "token_id": token, "bytes": as_bytes, "logprob": logprob}


def chat_result(
    builders: Sequence[ChunkBuilder], answers: Sequence[Sequence[TextDelta | Finished]]
) -> ChatResult:
    """Whole answers to one prompt.

    Args:
        builders: The chunk builder of each answer.
        answers: The engine's events of each answer.
    """
    messages = [_message(*pair) for pair in zip(builders, answers, strict=True)]
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


def _message(builder: ChunkBuilder, events: Sequence[TextDelta | Finished]) -> AIMessage:
    chunks = [chunk.message for event in events for chunk in builder.feed(event)]
    merged = add_ai_message_chunks(*cast("list[AIMessageChunk]", chunks))
    return cast("AIMessage", message_chunk_to_message(merged))


def usage(event: Finished, reasoning_tokens: int | None = None) -> UsageMetadata:
    """Tokens read and written.

    Args:
        event: The end of the answer.
        reasoning_tokens: How many of the written tokens were reasoning; None where there was none.
    """
    counted = UsageMetadata(
        input_tokens=event.prompt_tokens,
        output_tokens=event.completion_tokens,
        total_tokens=event.prompt_tokens + event.completion_tokens,
    )
    if "cached_tokens" not in event.unreported:
        counted["input_token_details"] = InputTokenDetails(cache_read=event.cached_tokens)
    if reasoning_tokens is not None:
        counted["output_token_details"] = OutputTokenDetails(reasoning=reasoning_tokens)
    return counted


def statistics(request: GenerationRequest, event: Finished) -> dict[str, Any]:
    """The mixture and settings of an answer, and how fast it was decoded."""

    def count(name: str) -> int | None:
        return None if name in event.unreported else getattr(event, name)

    return {
        "mixture": request.mixture.as_json(),
        "upscale_strength": request.upscale_strength,
        "upscale_top_p": request.upscale_top_p,
        "seed": request.sampling.seed,
        "context_tokens": event.context_tokens,
        "drafted": count("drafted_tokens"),
        "accepted": count("accepted_tokens"),
        "acceptance_rate": event.acceptance_rate,
        "verify_passes": count("verify_passes"),
        "tokens_per_second": round(event.tokens_per_second, 2),
        "time_to_first_token": round(event.time_to_first_token, 4),
    }


def total_usage(usages: Sequence[UsageMetadata], prompts: int) -> dict[str, int]:
    """The usage of several answers under OpenAI's names.

    Args:
        usages: The usage of each answer.
        prompts: How many prompts there were. The first `prompts` answers each have another one.
    """
    prompt = sum(usage["input_tokens"] for usage in usages[:prompts])
    completion = sum(usage["output_tokens"] for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _call_chunks(parts: Sequence[ToolCallPart]) -> list[ToolCallChunk]:
    """One chunk for each call, because LangChain joins parts of one call only across messages."""
    chunks: dict[int, ToolCallChunk] = {}
    for part in parts:
        chunk = chunks.setdefault(
            part.index, ToolCallChunk(name=None, args="", id=None, index=part.index, type="tool_call_chunk")
        )
        chunk["name"] = part.name if chunk["name"] is None else chunk["name"]
        chunk["id"] = chunk["id"] or part.id
        chunk["args"] = (chunk["args"] or "") + part.args
    return list(chunks.values())
