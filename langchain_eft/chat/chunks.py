"""The engine's events as LangChain's message chunks, one chunk for each round."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGenerationChunk

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.chat.output_parser import Call, Content, Delta, Parser, Reasoning
from langchain_eft.engine.decoding.detokenizer import token_bytes
from langchain_eft.engine.events import Finished, TextDelta, TokenLogprobs
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.trace.writer import TraceWriter


class ChunkBuilder:
    """Builds the chunks of one answer. Everything but text and calls comes once, on the last one.

    Args:
        request: What is being answered.
        parser: Tells text, reasoning and tool calls apart.
        tokenizer: For the texts of single tokens in log-probabilities and traces.
        model_name: The base, as the caller named it.
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
        self._trace = TraceWriter(tokenizer, request)
        self._calls = False
        self._tokens: list[int] = []
        self._thoughts: list[str] = []  # blocks of reasoning
        self._thinking = False

    def feed(self, event: TextDelta | Finished) -> Iterator[ChatGenerationChunk]:
        """The chunks that an event makes; none while nothing can be shown yet."""
        if isinstance(event, TextDelta):
            self._tokens += event.tokens
            yield from self._part(self._parser.feed(event.text), event)
        else:
            yield from self._part(self._parser.flush(), None)
            yield self._last(event)

    def _part(self, deltas: Sequence[Delta], event: TextDelta | None) -> Iterator[ChatGenerationChunk]:
        logprobs = self._logprobs(event) if event else []
        trace = self._trace.feed(event) if event else {}
        if not deltas and not logprobs and not trace:
            return
        calls = _call_chunks([delta for delta in deltas if isinstance(delta, Call)])
        self._calls = self._calls or bool(calls)
        reasoning = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
        self._remember(deltas)
        metadata: dict[str, Any] = {"model_provider": PROVIDER, **trace}
        if logprobs:
            metadata["logprobs"] = {"content": logprobs}
        message = AIMessageChunk(
            content="".join(delta.text for delta in deltas if isinstance(delta, Content)),
            tool_call_chunks=calls,
            additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
            response_metadata=metadata,
        )
        yield ChatGenerationChunk(message=message)

    def _last(self, event: Finished) -> ChatGenerationChunk:
        reason = "tool_calls" if self._calls and event.reason == "stop" else event.reason
        metadata = {
            "model_provider": PROVIDER,
            "model_name": self._model_name,
            "finish_reason": reason,
            "eft": statistics(self._request, event),
        }
        message = AIMessageChunk(
            content="",
            response_metadata=metadata,
            usage_metadata=usage(event, self._reasoning_tokens()) if self._usage else None,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info={"finish_reason": reason})

    def _reasoning_tokens(self) -> int | None:
        """Tokens up to the end of the reasoning; None where there was none."""
        if not self._thoughts:
            return None
        text, end = self._text(len(self._tokens)), 0
        for block in self._thoughts:
            end = text.find(block, end) + len(block)
        return bisect_left(range(len(self._tokens)), end, key=lambda count: len(self._text(count)))

    def _remember(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if isinstance(delta, Reasoning):
                self._thoughts += [] if self._thinking else [""]
                self._thoughts[-1] += delta.text
            self._thinking = isinstance(delta, Reasoning)

    def _text(self, count: int) -> str:
        text: str = self._tokenizer.decode(self._tokens[:count])
        return text

    def _logprobs(self, event: TextDelta) -> list[dict[str, Any]]:
        """Log-probabilities in OpenAI's form."""
        return [
            {**self._entry(token, entry.logprob), "top_logprobs": self._top(entry)}
            for token, entry in zip(event.tokens, event.logprobs, strict=False)
        ]

    def _top(self, entry: TokenLogprobs) -> list[dict[str, Any]]:
        return [self._entry(token, logprob) for token, logprob in entry.top]

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text: str = self._tokenizer.decode([token])
        return {"token": text, "bytes": list(token_bytes(self._tokenizer, token)), "logprob": logprob}


def usage(event: Finished, reasoning_tokens: int | None = None) -> UsageMetadata:
    """Tokens read and written, and how many of those written were reasoning, where there was any."""
    counted = UsageMetadata(
        input_tokens=event.prompt_tokens,
        output_tokens=event.completion_tokens,
        total_tokens=event.prompt_tokens + event.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=event.cached_tokens),
    )
    if reasoning_tokens is not None:
        counted["output_token_details"] = OutputTokenDetails(reasoning=reasoning_tokens)
    return counted


def statistics(request: GenerationRequest, event: Finished) -> dict[str, Any]:
    """What an answer was made of, and how fast."""
    return {
        "mixture": request.mixture.as_json(),
        "upscale_strength": request.upscale_strength,
        "upscale_top_p": request.upscale_top_p,
        "seed": request.sampling.seed,
        "context_tokens": event.context_tokens,
        "drafted": event.drafted_tokens,
        "accepted": event.accepted_tokens,
        "acceptance_rate": event.acceptance_rate,
        "verify_passes": event.verify_passes,
        "tokens_per_second": round(event.tokens_per_second, 2),
        "time_to_first_token": round(event.time_to_first_token, 4),
    }


def total_usage(parts: Sequence[UsageMetadata], prompts: int) -> dict[str, int]:
    """Usage of several answers in OpenAI's names; the first `prompts` of them had prompts of their own."""
    prompt = sum(part["input_tokens"] for part in parts[:prompts])
    completion = sum(part["output_tokens"] for part in parts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _call_chunks(calls: Sequence[Call]) -> list[ToolCallChunk]:
    """One chunk for each call: LangChain joins parts of one call only across messages."""
    chunks: dict[int, ToolCallChunk] = {}
    for call in calls:
        chunk = chunks.setdefault(
            call.index, ToolCallChunk(name=None, args="", id=None, index=call.index, type="tool_call_chunk")
        )
        chunk["name"] = call.name if chunk["name"] is None else chunk["name"]
        chunk["id"] = chunk["id"] or call.id
        chunk["args"] = (chunk["args"] or "") + call.args
    return list(chunks.values())
