"""Objects instead of messages: `with_structured_output` as a chain of a model and a parser."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
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
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

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
        "schema": None if schema is None else _as_tool(schema),
    }
    llm, parser = _chain(model, schema, method, ls_structured_output_format=traced, **kwargs)
    whole, finite = _each(_uncut), _each(_refuse_infinite)
    if not include_raw:
        return llm | whole | parser | finite
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | whole | parser | finite, parsing_error=lambda _: None
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


def _each(check: Callable[[Any], Any]) -> RunnableGenerator[Any, Any]:
    """A step that checks every value of a stream as it passes."""

    def checked(values: Iterator[Any]) -> Iterator[Any]:
        yield from map(check, values)

    async def achecked(values: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for value in values:
            yield check(value)

    return RunnableGenerator(checked, achecked)


def _uncut(message: AIMessage) -> AIMessage:
    """Refuse an answer that `max_tokens` has cut: parsers would close its brackets and take it for whole."""
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException(
            "The answer was cut at `max_tokens` before its object was complete: give a larger `max_tokens`, "
            "or a schema of shorter answers."
        )
    return message


def _refuse_infinite(value: Any) -> Any:
    """Refuse a number that Python reads as infinite, which JSON and its schema do not know."""
    inner = [value]
    while inner:
        part = inner.pop()
        if isinstance(part, float) and math.isinf(part):
            raise OutputParserException(
                "The answer has a number beyond the range of 64-bit floats: give `minimum` and `maximum` in "
                "the schema."
            )
        if isinstance(part, BaseModel):
            inner += [getattr(part, name) for name in part.model_fields_set]
        elif isinstance(part, Mapping | list | tuple):
            inner += part.values() if isinstance(part, Mapping) else part
    return value


def _as_tool(schema: Any) -> dict[str, Any]:
    """A tool whose arguments follow the schema, also where they are no object."""
    refuse_nesting(schema)
    try:
        return tool_dicts([schema])[0]
    except (
        RequestError
    ):  # LangChain does not read wrapped schemas, several types, nor schemas without a title
        parameters = schema_dict(schema)
        function = {"name": schema_name(schema), "description": parameters.get("description", "")}
        return {"type": "function", "function": {**function, "parameters": parameters}}


def _chain(
    model: BaseChatModel, schema: Any, method: Method, **kwargs: Any
) -> tuple[Runnable[LanguageModelInput, AIMessage], OutputParserLike[Any]]:
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        (tool,) = tool_dicts([_as_tool(schema)])
        name = tool_name(tool)
        llm = model.bind_tools([tool], tool_choice=name, **kwargs)
        if is_class:
            return llm, PydanticToolsParser(tools=[schema], first_tool_only=True)
        return llm, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    json_object = {"type": "json_object", "schema": schema}
    answer_format = response_format(json_object if method == "json_mode" else schema)
    parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    return model.bind(response_format=answer_format, **kwargs), parser
