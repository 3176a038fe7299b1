"""EFTLLM: plain text completion on the chat model's engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Sized
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from typing_extensions import override

from langchain_eft.base import BaseEFT, Configs, bounded
from langchain_eft.chat.chunks import statistics, total_usage, usage
from langchain_eft.chat.parameters import CALL_PARAMETERS, DecodingParameters, refuse_unknown
from langchain_eft.chat.prompts import Prompts, text_prompts
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.errors import langchain_errors
from langchain_eft.trace.writer import TraceWriter

if TYPE_CHECKING:
    from langchain_eft.engine.base_engine import BaseEngine


class EFTLLM(BaseEFT, BaseLLM):
    """Continue a text with an emulated fine-tuned model, without a chat template.

    Takes the fields of `EFTChatModel` that do not concern chat, and shares its engines.

    Example:
        ```python
        from langchain_eft import EFTLLM

        llm = EFTLLM(temperature=0, max_tokens=8)
        llm.invoke("The capital of Japan is")
        ```
    """

    @override
    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with langchain_errors():
            engine, requests, timeout = self._prepare(prompts, stop, kwargs)
            return _result(engine, requests, engine.generate(requests, timeout))

    @override
    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with langchain_errors():
            engine, requests, timeout = await asyncio.to_thread(self._prepare, prompts, stop, kwargs)
            return _result(engine, requests, await engine.agenerate(requests, timeout))

    @override
    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with langchain_errors():
            engine, (request,), timeout = self._prepare([prompt], stop, kwargs)
            writer = TraceWriter(engine.tokenizer)
            for event in engine.stream(request, timeout):
                chunk = completion_chunk(request, event, writer)
                if run_manager and chunk.text:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    @override
    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with langchain_errors():
            engine, (request,), timeout = await asyncio.to_thread(self._prepare, [prompt], stop, kwargs)
            writer = TraceWriter(engine.tokenizer)
            async for event in engine.astream(request, timeout):
                chunk = completion_chunk(request, event, writer)
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    # Batches: as many prompts at a time as the engine's queue takes

    @override
    def batch(self, inputs: list[LanguageModelInput], config: Any = None, **options: Any) -> list[str]:
        return super().batch(inputs, self._queued(inputs, config), **options)

    @override
    async def abatch(self, inputs: list[LanguageModelInput], config: Any = None, **options: Any) -> list[str]:
        return await super().abatch(inputs, self._queued(inputs, config), **options)

    @override
    def batch_as_completed(
        self, inputs: Sequence[LanguageModelInput], config: Any = None, **options: Any
    ) -> Iterator[tuple[int, Any]]:
        return super().batch_as_completed(inputs, self.paced(config), **options)

    @override
    def abatch_as_completed(
        self, inputs: Sequence[LanguageModelInput], config: Any = None, **options: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        return super().abatch_as_completed(inputs, self.paced(config), **options)

    def _queued(self, inputs: Sized, config: Configs) -> Configs:
        most = self._source().max_queued_requests
        return bounded(config, most) if len(inputs) > most else config

    def _prepare(
        self, prompts: list[str], stop: list[str] | None, parameters: Mapping[str, Any]
    ) -> tuple[BaseEngine, list[GenerationRequest], float | None]:
        """The engine of a call, what it decodes, and the seconds that an answer may take."""
        refuse_unknown(parameters, CALL_PARAMETERS, "a call")
        source = self._source(parameters.get("model"))
        engine = source.open()
        decoding = self.decoding_parameters(stop, parameters, source)
        return engine, [completion_request(engine, prompt, decoding) for prompt in prompts], decoding.timeout

    @property
    @override
    def _llm_type(self) -> str:
        return "eft"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return self.identity()

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.tracing_params("llm", stop, **kwargs)

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The text as the model's own tokens."""
        custom = self.custom_get_token_ids
        return self.text_ids(text) if custom is None else custom(text)


def completion_request(
    engine: BaseEngine, prompt: str | Prompts, decoding: DecodingParameters, **fields: Any
) -> GenerationRequest:
    """What the engine decodes to continue a text.

    Args:
        engine: Decodes it.
        prompt: The text, or the token ids that the models read.
        decoding: How it is decoded.
        fields: Further fields of the request.

    Raises:
        RequestError: No text, or a value that the engine does not accept.
    """
    if not prompt:
        raise RequestError("prompt='' is empty: give some text to continue.")
    if isinstance(prompt, str):
        prompt = text_prompts(engine.tokenizer, engine.recipe, decoding.mixture, prompt, engine.window)
    return decoding.request(prompt, engine.max_output_tokens(*prompt.lengths), **fields)


def completion_chunk(
    request: GenerationRequest, event: TextDelta | Finished, writer: TraceWriter
) -> GenerationChunk:
    """What an event adds to a continued text.

    Args:
        request: What is decoded.
        event: The engine's event.
        writer: Writes the trace of this answer.
    """
    if isinstance(event, TextDelta):
        return GenerationChunk(text=event.text, generation_info=writer.write(event) or None)
    info = {"finish_reason": event.reason, "usage": usage(event), "eft": statistics(request, event)}
    return GenerationChunk(text="", generation_info=info)


def _result(
    engine: BaseEngine, requests: list[GenerationRequest], answers: list[list[TextDelta | Finished]]
) -> LLMResult:
    generations, usages = [], []
    for request, events in zip(requests, answers, strict=True):
        writer = TraceWriter(engine.tokenizer)
        merged = reduce(add, (completion_chunk(request, event, writer) for event in events))
        usages.append(usage(next(event for event in events if isinstance(event, Finished))))
        generations.append([Generation(text=merged.text, generation_info=merged.generation_info)])
    return LLMResult(
        generations=generations, llm_output={"token_usage": total_usage(usages, prompts=len(usages))}
    )
