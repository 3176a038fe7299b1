"""`langchain-eft serve` as a remote engine's server."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from langchain_eft.engine.events import FinishReason, TokenLogprobs
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.remote.answer_reader import Piece
from langchain_eft.remote.connection import Connection
from langchain_eft.remote.description import Description
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.remote_model import RemoteModel
from langchain_eft.remote.tokenizer_files import LARGEST_FILES, TokenizerFiles, cached_tokenizer
from langchain_eft.remote.wire import (
    LARGEST_LISTING,
    MOST_TOP,
    Chunk,
    Count,
    Items,
    Logprob,
    Named,
    Said,
    TokenId,
    few,
)
from langchain_eft.trace.reader import read_trace
from langchain_eft.trace.tokens import TracedToken


class _Logprobs(Said):
    token_logprobs: Items[Logprob]
    top_token_ids: Items[Annotated[Items[tuple[TokenId, Logprob]], Field(max_length=MOST_TOP)]]


class _Figures(Said):
    drafted: Count
    accepted: Count
    verify_passes: Count
    context_tokens: Named[Count] | None = None


def _few_behaviors(token: Any) -> Any:
    few(few(token).get("behaviors") if isinstance(token, dict) else None)
    return token


class _Choice(Said):
    token_ids: Items[TokenId] | None = None
    logprobs: _Logprobs | None = None
    trace: Items[Annotated[TracedToken, BeforeValidator(_few_behaviors)]] | None = None
    finish_reason: FinishReason | None = None
    eft: _Figures | None = None


class EFTServer:
    """A server of this package. It decodes everything that an engine in the process does.

    Args:
        endpoint: Where it is.
        name: The model's name, or that of one of its mixtures.
        connection: Asks it.

    Raises:
        EngineError: It cannot be asked, or its tokenizer cannot be kept.
    """

    matches_stops: ClassVar[bool] = True
    scores: ClassVar[bool] = True

    def __init__(self, endpoint: Endpoint, name: str, connection: Connection) -> None:
        answer = connection.get(endpoint, "/recipe", LARGEST_LISTING, model=name)
        description = Description.model_validate_json(answer.content)

        def fetch() -> TokenizerFiles:
            files = connection.get(endpoint, f"/tokenizers/{description.tokenizer}", LARGEST_FILES)
            return TokenizerFiles.model_validate_json(files.content)

        self._etag = answer.headers.get("etag")
        if self._etag is None:
            raise ValueError("a recipe without an ETag")
        self.model = RemoteModel(
            id=description.model,
            name=name,
            recipe=description.local_recipe(),
            mixture=description.mixture,
            tokenizer=cached_tokenizer(description.tokenizer, fetch),
            end_ids=frozenset(description.end_ids),
            capacity=description.capacity,
        )

    def headers(self) -> dict[str, str]:
        """The headers of a request that decodes: a server that has other models now refuses it."""
        return {"If-Match": self._etag}

    def body(self, request: GenerationRequest) -> dict[str, Any]:
        """The body of a request to `/completions`."""
        return {
            "model": self.model.id,
            "prompt": request.prompt_ids,
            "contexts": dict(request.contexts) or None,
            "answer_prefix": request.answer_prefix or None,
            "mixture": request.mixture.as_json(),
            "upscale_strength": request.upscale_strength,
            "upscale_top_p": request.upscale_top_p,
            **request.sampling.model_dump(mode="json"),
            "max_tokens": request.max_tokens,
            "speculation": request.speculation,
            "stop": request.stop,
            "grammar": request.grammar,
            "visible_tokens": sorted(request.visible_tokens) or None,
            "logprobs": request.top_logprobs,
            "trace": request.trace,
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def read(self, data: bytes) -> Piece:
        """What an event of the answer's stream says.

        Raises:
            EngineError: The answer failed.
            ValueError: It is no such event.
        """
        chunk = Chunk[_Choice].parse(data)
        choice = chunk.choices[0] if chunk.choices else _Choice()
        counters, figures, logprobs = {}, choice.eft, choice.logprobs
        if chunk.usage and chunk.usage.cached_tokens is not None:
            counters["cached_tokens"] = chunk.usage.cached_tokens
        if figures:
            counters["drafted_tokens"], counters["accepted_tokens"] = figures.drafted, figures.accepted
            counters["verify_passes"] = figures.verify_passes
        return Piece(
            tokens=choice.token_ids or (),
            logprobs=[
                TokenLogprobs(logprob, tuple(top))
                for logprob, top in zip(logprobs.token_logprobs, logprobs.top_token_ids, strict=True)
            ]
            if logprobs
            else (),
            traces=[read_trace(token) for token in choice.trace or ()],
            reason=choice.finish_reason,
            counters=counters,
            context_tokens=(figures and figures.context_tokens) or {},
        )
