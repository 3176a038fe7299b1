"""The form that a call asks of its answer: tool calls, an object of a schema, or free text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from langchain_eft.chat import grammars
from langchain_eft.chat.structured_output import response_format
from langchain_eft.chat.subschemas import Schema
from langchain_eft.chat.tool_formats import ToolFormat
from langchain_eft.chat.tools import refuse_repeated_names, tool_dicts
from langchain_eft.engine.errors import RequestError

ANY_OBJECT: Schema = {"type": "object"}
"""The schema of `{"type": "json_object"}`."""


def normalize_form(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A call's parameters with tools, tool choice and response format in OpenAI's form.

    Normalized parameters stay as they are.

    Args:
        parameters: Parameters of a call. Those that do not concern the answer's form are left alone.

    Raises:
        RequestError: A tool, a choice or a schema that cannot be read.
    """
    normalized = dict(parameters)
    normalized["tools"] = tool_dicts(parameters.get("tools") or ())
    normalized["tool_choice"] = grammars.normalize_choice(parameters.get("tool_choice"), normalized["tools"])
    if parameters.get("response_format") is not None:
        normalized["response_format"] = response_format(parameters["response_format"])
    return normalized


@dataclass(frozen=True)
class Fork:
    """A choice between a tool call and an object of a schema, which the model makes without a grammar.

    A grammar for both admits only their first tokens. A model that has its result, and would say so in free
    text, then has no token to show that: it calls a tool again. So the model begins an answer freely, and the
    beginning decides which grammar the answer is decoded under.

    Attributes:
        opening: The text that calls begin with.
        calls: Grammar of an answer that begins with it.
        answer: Grammar of every other answer.
    """

    opening: str
    calls: str
    answer: str

    PROBE_TOKENS: ClassVar[int] = 4
    """Tokens of a free answer that show how it begins."""

    def grammar(self, beginning: str) -> str:
        """The grammar of an answer whose free form begins like this."""
        text = beginning.lstrip()
        is_call = text and (text.startswith(self.opening) or self.opening.startswith(text))
        return self.calls if is_call else self.answer


@dataclass(frozen=True)
class AnswerForm:
    """The form that a call asks of its answer.

    Attributes:
        tools: OpenAI tool dictionaries that the model sees.
        choice: `auto`, `none`, `any`, or the name of the tool to call.
        parallel: Whether one answer may hold several calls; None leaves it to the default.
        strict: Enforce the schema of calls that the model makes by its own choice; None does so where it can
            be done.
        schema: The schema of an answer that is not a call.
        shown: Whether the model is told this schema.
    """

    tools: list[dict[str, Any]]
    choice: str
    parallel: bool | None
    strict: bool | None
    schema: Schema | None
    shown: bool

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> AnswerForm:
        """The form that a call's parameters ask for.

        Raises:
            RequestError: A tool, a choice or a schema that cannot be read, or two tools of one name.
        """
        normalized = normalize_form(parameters)
        refuse_repeated_names(normalized["tools"])
        choice = normalized["tool_choice"]
        answer_format = normalized.get("response_format")
        schema = answer_format and answer_format.get("json_schema", answer_format).get("schema", ANY_OBJECT)
        schema = schema if choice in ("auto", "none") else None
        return cls(
            tools=[] if choice == "none" else normalized["tools"],
            choice=choice,
            parallel=parameters.get("parallel_tool_calls"),
            strict=parameters.get("strict"),
            schema=schema,
            shown="json_schema" in (answer_format or {}) and schema not in (None, ANY_OBJECT),
        )

    @property
    def forced(self) -> bool:
        """Whether the answer has to be a call."""
        return self.choice not in ("auto", "none")

    @property
    def enforced(self) -> bool:
        """Whether the answer is decoded under a grammar."""
        calls_enforced = bool(self.tools) and (bool(self.strict) or self.parallel is False)
        return self.forced or self.schema is not None or calls_enforced

    def grammar(self, tool_format: ToolFormat) -> str | None:
        """The grammar of the answer, with calls in this format; None where nothing is enforced.

        Raises:
            RequestError: A schema that cannot be enforced.
        """
        several = self.parallel is not False
        if self.forced:
            return grammars.calls_grammar(tool_format, self.tools, self.choice, parallel=bool(self.parallel))
        if self.schema is not None and not self.tools:
            return grammars.schema_grammar(self.schema)
        if self.schema is not None:
            return grammars.union_grammar(tool_format, self.tools, self.schema, parallel=several)
        return grammars.strict_grammar(tool_format, self.tools, parallel=several) if self.enforced else None

    def default_grammar(self, tool_format: ToolFormat) -> str | None:
        """The grammar that holds free calls to their schema although nobody asks for it; None for no grammar.

        Only where the template itself shows calls, and where all schemas can be enforced.
        """
        shown = tool_format.name not in ("prompted", "native")
        if self.enforced or self.strict is False or not (self.tools and shown):
            return None
        try:
            grammar = grammars.held_grammar(tool_format, self.tools)
        except RequestError:
            return None
        return grammar if grammars.compiles(grammar) else None

    def fork(self, tool_format: ToolFormat) -> Fork | None:
        """The choice between calls and objects, where the first tokens tell one from the other.

        Raises:
            RequestError: A schema that cannot be enforced.
        """
        if self.schema is None or not self.tools or tool_format.untagged:
            return None
        several = self.parallel is not False
        return Fork(
            opening=tool_format.opens[0],
            calls=grammars.calls_grammar(tool_format, self.tools, "any", parallel=several),
            answer=grammars.schema_grammar(self.schema),
        )
