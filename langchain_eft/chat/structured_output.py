"""Objects instead of messages: `with_structured_output` as a chain of a model and a parser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_eft.chat.schemas import schema_dict, schema_name
from langchain_eft.chat.tools import tool_dicts, tool_name
from langchain_eft.engine.decoding.schema_limits import refuse_nesting
from langchain_eft.engine.errors import RequestError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Method = Literal["function_calling", "json_schema", "json_mode"]
_METHODS = ("function_calling", "json_schema", "json_mode")


def structured_runnable(
    model: BaseChatModel,
    schema: dict[str, Any] | type | None,
    method: Method,
    include_raw: bool,  # noqa: FBT001
    strict: bool | None,  # noqa: FBT001
    **kwargs: Any,
) -> Runnable[LanguageModelInput, Any]:
    """A model bound to a schema, and the parser of its answers.

    Args:
        model: The chat model.
        schema: As in `with_structured_output`.
        method: As in `with_structured_output`.
        include_raw: As in `with_structured_output`.
        strict: As in `with_structured_output`.
        kwargs: Further parameters of every call.

    Raises:
        RequestError: An unknown method, or a schema that cannot be read.
    """
    if method not in _METHODS:
        raise RequestError(f"method={method!r} is unknown: use one of {', '.join(_METHODS)}.")
    if schema is None and method != "json_mode":
        raise RequestError(f"schema=None does not work with method={method!r}: give one, or use 'json_mode'.")
    traced = {
        "kwargs": {"method": method, **({} if strict is None else {"strict": strict})},
        "schema": None if schema is None else _traced_schema(schema),
    }
    llm, parser = _chain(model, schema, method, ls_structured_output_format=traced, **kwargs)
    whole = RunnableGenerator(_whole, _awhole)
    if not include_raw:
        return llm | whole | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | whole | parser, parsing_error=lambda _: None
    )
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")


def response_format(schema: Any) -> dict[str, Any]:
    """A schema as OpenAI's `response_format`. A response format stays as it is.

    Args:
        schema: A pydantic class, a TypedDict, a plain or wrapped schema dictionary, or a response format. A
            `json_object` may have a `schema` too, which is enforced but not shown to the model.

    Raises:
        RequestError: A value that does not describe JSON.
    """
    if isinstance(schema, Mapping) and schema.get("type") == "json_object":
        inner = schema.get("schema")
        return {"type": "json_object", **({} if inner is None else {"schema": schema_dict(inner)})}
    named = {"name": schema_name(schema), "schema": schema_dict(schema)}
    return {"type": "json_schema", "json_schema": named}


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """The instruction that shows the model a schema. The model cannot see the grammar that enforces it."""
    return (
        "Respond only with a JSON object that matches this JSON schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )


def _whole(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """Refuse an answer that `max_tokens` has cut: parsers would close its brackets and take it for whole."""
    for message in messages:
        yield _uncut(message)


async def _awhole(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield _uncut(message)


def _uncut(message: AIMessage) -> AIMessage:
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException(
            "The answer was cut at `max_tokens` before its object was complete: give a larger `max_tokens`, "
            "or a schema of shorter answers."
        )
    return message


def _traced_schema(schema: Any) -> dict[str, Any]:
    """The schema as tracers record it."""
    refuse_nesting(schema)
    try:
        return convert_to_json_schema(schema)
    except (AttributeError, ValueError):  # LangChain reads no several types, wrappers, or lack of a title
        return {"title": schema_name(schema), **schema_dict(schema)}


def _as_tool(schema: Any) -> dict[str, Any]:
    """A tool whose arguments follow the schema."""
    try:
        return tool_dicts([schema])[0]
    except RequestError:
        return tool_dicts([{"title": schema_name(schema), **schema_dict(schema)}])[0]


def _chain(
    model: BaseChatModel, schema: Any, method: Method, **kwargs: Any
) -> tuple[Runnable[LanguageModelInput, AIMessage], OutputParserLike[Any]]:
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        tool = _as_tool(schema)
        name = tool_name(tool)
        llm = model.bind_tools([tool], tool_choice=name, **kwargs)
        if is_class:
            return llm, PydanticToolsParser(tools=[schema], first_tool_only=True)
        return llm, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    json_object = {"type": "json_object", "schema": schema}
    answer_format = response_format(json_object if method == "json_mode" else schema)
    parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    return model.bind(response_format=answer_format, **kwargs), parser
