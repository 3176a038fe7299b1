"""The bodies of requests: OpenAI's fields, and those of this package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)

from langchain_eft.chat.parameters import CALL_PARAMETERS, CHAT_PARAMETERS, MOST_ANSWERS, refuse_unknown
from langchain_eft.chat.prompts import Prompts
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.limits import MOST_TOP_LOGPROBS
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.engine.request import Speculation
from langchain_eft.server.limits import MOST_QUESTIONS
from langchain_eft.server.protocol.messages import Items, Message

_DECODING = CALL_PARAMETERS - {"model", "mixture", "stop", "stream", "timeout"}
"""Fields that are parameters of every call, under the same name."""

_CHAT = (
    CHAT_PARAMETERS - CALL_PARAMETERS - {"output_version", "stream_options", "stream_usage", "tool_choice"}
)
"""Fields that are parameters of a call of the chat model, under the same name."""


class Body(BaseModel):
    """A body that refuses what it does not know."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            refuse_unknown(values, cls.model_fields, "this route")
        return values


def _listed(stop: Any) -> Any:
    """One string is a list of one."""
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(Body):
    """What a stream says beside the answer."""

    include_usage: bool | None = None
    """Send one more chunk, with the number of tokens."""

    include_obfuscation: bool | None = None
    """Has no effect: chunks are not padded."""


class MixtureBody(Body):
    """Which p a request is about. A field that is left out, or null, has the server's own value."""

    model: str
    """The model, alone or with a mixture: `smol`, `smol:pirate=0.7,concise=0.3`, `smol:none` (the base)."""

    mixture: dict[str, Weight] | None = None
    """Weight of each behavior: a number, or a schedule such as `{"start": 1, "end": 0, "tokens": 32}`."""

    upscale_strength: float | None = None
    """How much the large model adds; 0 is the small models alone."""

    upscale_top_p: float | None = None
    """Below 1, the large model re-weights only likely tokens."""

    def _given(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def upscaling(self) -> dict[str, Any]:
        """The parameters of a call that say how much the large model adds."""
        return self._given(("upscale_strength", "upscale_top_p"))


class DecodingBody(MixtureBody):
    """How an answer is decoded. A field that is left out, or null, has the server's own value."""

    stream: StrictBool | None = None
    """Send the answer in pieces, as server-sent events."""

    stream_options: StreamOptions | None = None
    n: int | None = None
    """Answers to each prompt."""

    max_tokens: int | None = None
    """Longest answer, in tokens."""

    stop: Annotated[Items[str] | None, BeforeValidator(_listed)] = None
    """Strings that end the answer and are not part of it."""

    seed: int | None = None
    """The same seed gives the same answer."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    """Added to the log-probability of tokens, by token id."""

    speculation: Speculation | None = None
    """Tokens to draft for each pass of the large model: `auto`, `off`, or a number."""

    trace: StrictBool | None = None
    """Report what every model contributes to each token, in `choices[].trace`."""

    answer_prefix: Annotated[list[int], Field(fail_fast=True)] | None = None
    """Token ids that the answer begins with."""

    return_token_ids: StrictBool | None = None
    """Report token ids, in `prompt_token_ids` and `choices[].token_ids`."""

    user: str | None = None
    """Has no effect."""

    @property
    def decoding(self) -> dict[str, Any]:
        """The parameters of a call that this body sets, without its mixture."""
        return self._given(_DECODING)

    @property
    def includes_usage(self) -> bool:
        """Whether a stream counts its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class NamedFunction(BaseModel):
    """A function by its name."""

    name: str


class NamedTool(BaseModel):
    """A tool by its name."""

    function: NamedFunction


class AllowedTools(BaseModel):
    """Some of the tools, and whether one of them has to be called."""

    mode: Literal["auto", "required"]
    tools: Items[NamedTool]


class AllowedToolChoice(BaseModel):
    """OpenAI's tool choice that admits some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _untyped_text(response_format: Any) -> Any:
    """`{"type": "text"}` asks for nothing."""
    return None if response_format == {"type": "text"} else response_format


def _without_template(variables: dict[str, Any] | None) -> dict[str, Any] | None:
    """A template of the caller's own could keep the server busy without end."""
    if variables and "chat_template" in variables:
        raise ValueError("The chat template is the server's: give its variables only.")
    return variables


TemplateVariables = Annotated[dict[str, Any] | None, AfterValidator(_without_template)]


class ChatBody(DecodingBody):
    """Body of `/v1/chat/completions`."""

    messages: Items[Message]
    """The conversation, oldest message first."""

    max_completion_tokens: int | None = None
    """OpenAI's newer name of `max_tokens`; it counts if both are given."""

    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    """Functions that the model may call."""

    tool_choice: str | AllowedToolChoice | dict[str, Any] | None = None
    """`auto`, `none`, `required`, a function by name, or OpenAI's `allowed_tools`. Decoding enforces it."""

    parallel_tool_calls: StrictBool | None = None
    """Allow several calls in one answer."""

    response_format: Annotated[dict[str, Any] | None, BeforeValidator(_untyped_text)] = None
    """`{"type": "json_schema", ...}` or `{"type": "json_object"}`. Decoding enforces it."""

    logprobs: StrictBool | None = None
    """Report the log-probability of every token."""

    top_logprobs: int | None = None
    """With `logprobs`, also report this many of the most probable tokens at every position."""

    chat_template_kwargs: TemplateVariables = None
    """Variables of the chat template."""

    reasoning_effort: str | None = None
    """How much the model reasons, where its chat template has a variable for that."""

    strict: StrictBool | None = None
    """Enforce the schema of calls that the model makes by its own choice, as `strict` of a function does.
    False leaves them free."""

    modalities: Items[Literal["text"]] | None = None
    """Text is the only one."""

    # OpenAI's fields that change no answer
    metadata: dict[str, Any] | None = None
    """Has no effect."""

    store: bool | None = None
    """Has no effect: nothing is stored."""

    service_tier: str | None = None
    """Has no effect."""

    prediction: dict[str, Any] | None = None
    """Has no effect: drafts come from the small models and from the prompt."""

    prompt_cache_key: str | None = None
    """Has no effect: prompts that begin alike share their beginning anyway."""

    prompt_cache_retention: str | None = None
    """Has no effect."""

    safety_identifier: str | None = None
    """Has no effect."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a call of the chat model that this body sets, without its mixture."""
        parameters = {**self.decoding, **self._given(_CHAT), **self._tool_choice()}
        if self.max_completion_tokens is not None:
            parameters["max_tokens"] = self.max_completion_tokens
        functions = [f for tool in self.tools or () if isinstance(f := tool.get("function"), dict)]
        stated = [function["strict"] for function in functions if function.get("strict") is not None]
        if stated and not parameters.get("strict"):
            parameters["strict"] = any(stated)
        return parameters

    def _tool_choice(self) -> dict[str, Any]:
        """The tool choice, and the tools that it leaves."""
        if not isinstance(self.tool_choice, AllowedToolChoice):
            return self._given(("tool_choice",))
        allowed = self.tool_choice.allowed_tools
        names = [tool.function.name for tool in allowed.tools]
        return {
            "tool_choice": allowed.mode,
            "tools": [tool for tool in self.tools or () if _name(tool) in names],
        }


def _name(tool: dict[str, Any]) -> Any:
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else None


TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]


Contexts = dict[str, TokenIds] | None


def by_name(contexts: Contexts) -> dict[str, tuple[int, ...]]:
    """The other prompts that some models read, by name."""
    return {name: tuple(ids) for name, ids in (contexts or {}).items()}


def at_most_answers(total: int) -> None:
    """Refuse a request with too many answers.

    Raises:
        RequestError: There are more than 1024.
    """
    if total > MOST_ANSWERS:
        raise RequestError(
            f"{total} answers are too many: a request may have {MOST_ANSWERS}. Send several requests."
        )


class CompletionBody(DecodingBody):
    """Body of `/v1/completions`."""

    prompt: (
        str
        | TokenIds
        | Annotated[Items[str], Field(min_length=1)]
        | Annotated[Items[TokenIds], Field(min_length=1)]
    )
    """A text, its token ids, or a list of either."""

    contexts: Contexts = None
    """With token ids: the other prompts that some models read, by name."""

    grammar: str | None = None
    """A Lark grammar in llguidance's dialect that the answer must follow."""

    visible_tokens: Items[int] | None = None
    """Special tokens that are part of the text."""

    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    """Report log-probabilities: of each token, and of this many most probable tokens."""

    echo: Literal[False] | None = None
    """The prompt is not repeated."""

    best_of: Literal[1] | None = None
    """Answers are not chosen among others: use `n`."""

    suffix: Literal[""] | None = None
    """Nothing is inserted into a text."""

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Every prompt of the batch."""
        single = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if single else self.prompt  # type: ignore[return-value]


class PromptWithAnswers(Body):
    """A prompt, and answers to it."""

    prompt: TokenIds
    """Token ids of the prompt."""

    contexts: Contexts = None
    """The other prompts that some models read, by name."""

    answers: Annotated[Items[TokenIds], Field(min_length=1)]
    """Token ids of each answer."""

    @property
    def prompts(self) -> Prompts:
        """What the models read."""
        return Prompts(tuple(self.prompt), by_name(self.contexts))


class RewardsBody(PromptWithAnswers):
    """Body of `/v1/rewards`."""

    model: str
    """The model. Its mixture makes no difference."""

    behavior: str
    """The behavior that scores."""


class LogprobsBody(MixtureBody):
    """Body of `/v1/logprobs`."""

    given: Annotated[Items[PromptWithAnswers], Field(min_length=1)]
    """Prompts with their answers. What they have in common is read once."""


class DecisionBody(MixtureBody):
    """Body of `/v1/systemone`."""

    state: str | dict[str, Any] | list[Any]
    """What is judged: a text, or JSON."""

    questions: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=MOST_QUESTIONS)]
    """Questions by name: `type` is `noul` (yes or no), `choice` or `score`; `instructions` is the question;
    `criteria` are the answers, as LangChain's decision models have them."""

    assets: dict[str, Any] | None = None
    """Images, which the models cannot read: leave them out."""


class TokenizeBody(Body):
    """Body of `/tokenize`: a prompt, or messages."""

    model: str | None = None
    """Has no effect: all mixtures share one tokenizer."""

    prompt: str | None = None
    """A text."""

    add_special_tokens: bool | None = None
    """Add the tokens that begin every text. By default a prompt gets them, and messages do not."""

    messages: Items[Message] | None = None
    """A conversation, which the chat template renders."""

    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    add_generation_prompt: bool = True
    """Open the assistant's turn at the end."""

    chat_template_kwargs: TemplateVariables = None
    return_token_strs: bool | None = None
    """Also return the text of each token."""

    @model_validator(mode="after")
    def _one(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("Give either `prompt` or `messages`.")
        return self


class DetokenizeBody(Body):
    """Body of `/detokenize`."""

    model: str | None = None
    """Has no effect: all mixtures share one tokenizer."""

    tokens: Annotated[list[int], Field(fail_fast=True)]
    """Token ids."""
