"""vLLM with the plugin as a remote engine's server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator, Field
from pydantic_core import from_json

from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import CheckpointNotFoundError, DecodingError, RequestError
from langchain_eft.engine.events import FinishReason, TokenLogprobs
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.notation import format_mixture
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.remote.answer_reader import Piece
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.remote_model import RemoteModel
from langchain_eft.remote.tokenizer_files import load_tokenizer
from langchain_eft.remote.wire import MOST_TOP, Chunk, Items, Logprob, Model, Said, TokenId, few
from langchain_eft.vllm.section import EFTSection

_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What of an export a client reads."""

_LARGEST_BIAS = 100.0
"""vLLM clamps larger ones without a word."""

_LARGEST_PENALTY = 2.0

_TOKEN = "token_id:"  # noqa: S105
"""How vLLM writes a token by its id."""

_WrittenToken = Annotated[str, Field(pattern=f"^{_TOKEN}[0-9]{{1,9}}$")]


class _Logprobs(Said):
    token_logprobs: Items[Logprob]
    top_logprobs: Items[
        Annotated[dict[_WrittenToken, Logprob], Field(max_length=MOST_TOP), BeforeValidator(few)]
    ]


class _Choice(Said):
    token_ids: Items[TokenId] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class VLLMServer:
    """A vLLM server with the plugin.

    It decodes one prompt of token ids, so it has no behaviors that compare prompts, and it traces nothing.

    Args:
        endpoint: Where it is.
        entry: What it says about the model in `/models`.

    Raises:
        CheckpointNotFoundError: The export's files are not on this machine or on the hub.
        RecipeError: They are no export.
    """

    matches_stops: ClassVar[bool] = False
    scores: ClassVar[bool] = False

    def __init__(self, endpoint: Endpoint, entry: Model) -> None:
        folder = _folder(endpoint.tokenizer or entry.root or "", endpoint)
        section = EFTSection.of(from_json((folder / "config.json").read_bytes()))
        window = min(section.window, entry.max_model_len or section.window)
        self.model = RemoteModel(
            id=entry.id,
            name=entry.id,
            recipe=section.recipe,
            mixture=section.default_mixture,
            tokenizer=load_tokenizer(folder),
            end_ids=frozenset(section.end_ids),
            capacity=Capacity(max_model_len=window, num_blocks=window, block_size=1),
        )

    def headers(self) -> dict[str, str]:
        """The headers of a request that decodes."""
        return {}

    def body(self, request: GenerationRequest) -> dict[str, Any]:
        """The body of a request to `/completions`.

        Raises:
            RequestError: vLLM cannot decode this.
        """
        _refuse(request)
        sampling = request.sampling
        return {
            "model": self.model.id,
            "prompt": request.prompt_ids,
            "vllm_xargs": {
                "mixture": format_mixture(request.mixture.weights, ","),
                "upscale_strength": request.upscale_strength,
                "upscale_top_p": request.upscale_top_p,
            },
            **sampling.model_dump(mode="json", exclude={"logit_bias"}),
            "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
            "max_tokens": request.max_tokens,
            "stop_token_ids": sorted(self.model.end_ids),
            "structured_outputs": None if request.grammar is None else {"grammar": request.grammar},
            "logprobs": request.top_logprobs,
            "return_tokens_as_token_ids": True,
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
        cached = chunk.usage.cached_tokens if chunk.usage else None
        return Piece(
            tokens=choice.token_ids or (),
            logprobs=_token_logprobs(choice.logprobs) if choice.logprobs else (),
            reason=_reason(choice.finish_reason),
            counters={} if cached is None else {"cached_tokens": cached},
        )


def _folder(source: str, endpoint: Endpoint) -> Path:
    """The folder with an export's files: of this machine, or fetched from the hub.

    Args:
        source: What the caller or the server names.
        endpoint: For messages.

    Raises:
        CheckpointNotFoundError: There is no such folder, and no such model on the hub.
    """
    with suppress(OSError, RuntimeError):  # a name that is too long, the home of nobody
        if source and (folder := Path(source).expanduser()).is_dir():
            return folder
    hub = HubModel.parse(source)
    if hub is None:
        text = shown(source)
        named = f"tokenizer={text}" if endpoint.tokenizer else f"{endpoint.url} serves {text}, which"
        raise CheckpointNotFoundError(
            f"{named} is no folder of this machine: copy the folder that `langchain-eft export` wrote, "
            "without its weights, and give it as `tokenizer`."
        )
    from huggingface_hub import snapshot_download

    patterns = [f"{hub.path}/{file}".lstrip("/") for file in _FILES]
    try:
        fetched = Path(snapshot_download(hub.repo, revision=hub.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise CheckpointNotFoundError(
            f"The tokenizer of {source!r} cannot be fetched from the hub ({error}): give a folder as "
            "`tokenizer`."
        ) from error
    return fetched / hub.path


def _refuse(request: GenerationRequest) -> None:
    """Refuse what vLLM would not decode as the engine does.

    Raises:
        RequestError: With the first such value.
    """
    largest = max(map(abs, request.sampling.logit_bias.values()), default=0.0)
    penalties = max(abs(request.sampling.presence_penalty), abs(request.sampling.frequency_penalty))
    gated = [name for name, weight in request.mixture.active().items() if isinstance(weight, Gate)]
    for impossible, problem in (
        (
            gated,
            f"the gated weight of {quoted_names(gated)}: vLLM needs weights before it knows L",
        ),
        (request.trace, "trace=True: vLLM does not trace"),
        (request.contexts, "a behavior that compares two prompts: vLLM reads one prompt for each request"),
        (request.answer_prefix, "answer_prefix: vLLM would not count it as a part of the answer"),
        (
            request.speculation != "auto",
            f"speculation={request.speculation!r}: a vLLM server drafts as it was started, which is 'auto'",
        ),
        (
            request.grammar is not None and request.top_logprobs is not None,
            "logprobs of an answer with a schema or an enforced tool: vLLM takes them behind the grammar",
        ),
        (largest > _LARGEST_BIAS, f"a logit_bias of {largest:g}: vLLM allows -100 to 100"),
        (penalties > _LARGEST_PENALTY, f"a penalty of {penalties:g}: vLLM allows -2 to 2"),
    ):
        if impossible:
            raise RequestError(
                f"vLLM cannot decode {problem}. Leave it out, or use `langchain-eft serve` or an engine in "
                "this process."
            )


def _token_logprobs(said: _Logprobs) -> list[TokenLogprobs]:
    """Log-probabilities of each token; vLLM adds the drawn one to the most probable ones."""
    return [
        TokenLogprobs(
            logprob,
            tuple(
                (int(token.removeprefix(_TOKEN)), value)
                for token, value in sorted(top.items(), key=lambda entry: -entry[1])
            ),
        )
        for logprob, top in zip(said.token_logprobs, said.top_logprobs, strict=True)
    ]


def _reason(reason: str | None) -> FinishReason | None:
    """Why an answer has ended.

    Raises:
        DecodingError: vLLM has given it up.
    """
    if reason is None or reason in get_args(FinishReason):
        return reason  # type: ignore[return-value]
    raise DecodingError(f"vLLM ends the answer by {reason!r}: try again.")
