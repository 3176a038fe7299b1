"""EFTLLM: plain text completion on the same engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from typing_extensions import override

from langchain_eft.base import PER_CALL, EFTSettings, refuse_unknown
from langchain_eft.chat.chunks import statistics, total_usage, usage
from langchain_eft.chat.prompts import read_text
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.errors import langchain_errors
from langchain_eft.trace.writer import TraceWriter

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

_REQUEST = PER_CALL - {"stop", "stream", "timeout"}


class EFTLLM(EFTSettings, BaseLLM):
    """Continue a text with an emulated fine-tuned model, without any chat template.

    Takes the settings of `EFTChatModel` and shares its engines.

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
        engine = self.open(model=kwargs.get("model"))
        with langchain_errors():
            requests = [self._request(engine, prompt, stop, **kwargs) for prompt in prompts]
            return _result(engine, requests, engine.generate(requests, self.call_timeout(kwargs)))

    @override
    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        engine = await self._aopen(kwargs.get("model"))
        with langchain_errors():
            requests = [self._request(engine, prompt, stop, **kwargs) for prompt in prompts]
            return _result(engine, requests, await engine.agenerate(requests, self.call_timeout(kwargs)))

    @override
    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        engine = self.open(model=kwargs.get("model"))
        with langchain_errors():
            request = self._request(engine, prompt, stop, **kwargs)
            writer = TraceWriter(engine.tokenizer, request)
            for event in engine.stream(request, self.call_timeout(kwargs)):
                chunk = _chunk(request, event, writer)
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
        engine = await self._aopen(kwargs.get("model"))
        with langchain_errors():
            request = self._request(engine, prompt, stop, **kwargs)
            writer = TraceWriter(engine.tokenizer, request)
            async for event in engine.astream(request, self.call_timeout(kwargs)):
                chunk = _chunk(request, event, writer)
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _request(
        self, engine: Engine, prompt: str, stop: list[str] | None, **kwargs: Any
    ) -> GenerationRequest:
        refuse_unknown(set(kwargs) - PER_CALL, PER_CALL, "a call")
        if not prompt:
            raise RequestError("prompt='' is empty: give some text to continue.")
        ids, contexts = read_text(engine.tokenizer, engine.recipe, self.call_mixture(kwargs), prompt)
        settings = {name: value for name, value in kwargs.items() if name in _REQUEST}
        return self.generation_request(engine, ids, stop, contexts=contexts, **settings)

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
        own = self.custom_get_token_ids
        return self.text_ids(text) if own is None else own(text)


def _chunk(request: GenerationRequest, event: TextDelta | Finished, writer: TraceWriter) -> GenerationChunk:
    if isinstance(event, TextDelta):
        return GenerationChunk(text=event.text, generation_info=writer.feed(event) or None)
    info = {"finish_reason": event.reason, "usage": usage(event), "eft": statistics(request, event)}
    return GenerationChunk(text="", generation_info=info)


def _result(
    engine: Engine, requests: list[GenerationRequest], events: list[list[TextDelta | Finished]]
) -> LLMResult:
    generations, usages = [], []
    for request, happened in zip(requests, events, strict=True):
        writer = TraceWriter(engine.tokenizer, request)
        whole = reduce(add, (_chunk(request, event, writer) for event in happened))
        usages.append(usage(next(event for event in happened if isinstance(event, Finished))))
        generations.append([Generation(text=whole.text, generation_info=whole.generation_info)])
    return LLMResult(
        generations=generations, llm_output={"token_usage": total_usage(usages, prompts=len(usages))}
    )
