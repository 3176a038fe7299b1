"""`langchain-eft serve` as a remote engine's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from langchain_eft.engine.request import GenerationRequest
from langchain_eft.remote.answer_reader import Piece, token_logprobs
from langchain_eft.remote.connection import Connection
from langchain_eft.remote.description import Description
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.served_model import ServedModel
from langchain_eft.remote.tokenizer_files import TokenizerFiles, cached_tokenizer
from langchain_eft.trace.reader import read_trace


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
        answer = connection.get(endpoint, "/recipe", model=name)
        description = Description.model_validate_json(answer.content)

        def fetch() -> TokenizerFiles:
            files = connection.get(endpoint, f"/tokenizers/{description.tokenizer}")
            return TokenizerFiles.model_validate_json(files.content)

        self._etag = answer.headers["etag"]
        self.model = ServedModel(
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

    def read(self, chunk: Mapping[str, Any]) -> Piece:
        """What a chunk of the answer's stream says."""
        choice: Mapping[str, Any] = next(iter(chunk["choices"]), {})
        counters, eft = {}, choice.get("eft") or {}
        if usage := chunk.get("usage"):
            counters["cached_tokens"] = usage["prompt_tokens_details"]["cached_tokens"]
        if eft:
            counters["drafted_tokens"], counters["accepted_tokens"] = eft["drafted"], eft["accepted"]
            counters["verify_passes"] = eft["verify_passes"]
        logprobs = choice.get("logprobs") or {"token_logprobs": (), "top_token_ids": ()}
        return Piece(
            tokens=choice.get("token_ids") or (),
            logprobs=list(map(token_logprobs, logprobs["token_logprobs"], logprobs["top_token_ids"])),
            traces=[read_trace(entry) for entry in choice.get("trace") or ()],
            reason=choice.get("finish_reason"),
            counters=counters,
            context_tokens=eft.get("context_tokens") or {},
        )
