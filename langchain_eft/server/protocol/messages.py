"""OpenAI's messages as LangChain's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_eft.server.limits import MOST_ITEMS

T = TypeVar("T")

Items = Annotated[list[T], Field(max_length=MOST_ITEMS, fail_fast=True)]
"""A list of limited length. The first entry that does not fit ends its validation."""


class FunctionCall(BaseModel):
    """The function that a call names."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(BaseModel):
    """A call of a tool in an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(BaseModel):
    """A message of a conversation. Fields that no model reads, such as `annotations`, are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Items[str | dict[str, Any]] | None = None
    """Text, or parts of content. Null is no text."""

    name: str | None = None
    refusal: str | None = None
    """Read as the text of an answer that has no other."""

    reasoning_content: str | None = None
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: str | None = None
    """Which call a message of role `tool` answers."""

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        needed = {"tool": "tool_call_id", "function": "name"}.get(self.role)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"A message of role {self.role!r} needs `{needed}`: say which call it answers.")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"A message of role {self.role!r} has tool_calls: only an assistant's may.")
        return self

    def as_langchain(self) -> BaseMessage:
        """The same message for `EFTChatModel`."""
        fields = {
            "role": self.role,
            "content": self._content(),
            "name": self.name,
            "tool_call_id": self.tool_call_id if self.role == "tool" else None,
        }
        if self.reasoning_content and self.role == "assistant":
            fields["reasoning_content"] = self.reasoning_content
        (message,) = convert_to_messages([fields])
        if isinstance(message, AIMessage):
            for call in self.tool_calls or ():
                _add_call(message, call.model_dump())
        return message

    def _content(self) -> str | list[str | dict[str, Any]]:
        if isinstance(self.content, list):
            return [
                {"type": "text", "text": part.get("refusal")}
                if isinstance(part, dict) and part.get("type") == "refusal"
                else part
                for part in self.content
            ]
        return self.content or self.refusal or ""


def _add_call(message: AIMessage, call: dict[str, Any]) -> None:
    try:
        message.tool_calls.append(parse_tool_call(call))  # type: ignore[arg-type]
    except OutputParserException as error:  # cut at `max_tokens`, for example
        message.invalid_tool_calls.append(make_invalid_tool_call(call, str(error)))
