"""One call of the chat model: what its parameters ask of the answer, and how the answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from langchain_core.messages import BaseMessage

from langchain_eft.chat import grammars
from langchain_eft.chat.messages import instruct
from langchain_eft.chat.output_parser import OutputParser, Parser
from langchain_eft.chat.prompts import read_conversation
from langchain_eft.chat.response_template import ResponseTemplateParser, template_tokens
from langchain_eft.chat.schemas import Schema
from langchain_eft.chat.structured_output import instructions, response_format
from langchain_eft.chat.tool_formats import (
    END_THINK,
    THINK,
    ToolFormat,
    chat_template,
    tool_format,
    visible_tokens,
)
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture

_ANY_OBJECT: Schema = {"type": "object"}
"""What `json_object` admits; the prompt says the rest."""


@dataclass(frozen=True)
class Fork:
    """The choice between a call and an object of a schema, which the model makes as if nothing were enforced.

    Under one grammar for both, only the tokens that begin either would count: a model that wants to say what
    it found, and not to call again, cannot show that at the first token and calls again.

    Attributes:
        opening: How calls begin.
        calls: The grammar of an answer that begins so.
        answer: The grammar of any other answer.
    """

    opening: str
    calls: str
    answer: str

    TOKENS: ClassVar[int] = 4
    """Tokens of a free answer that show how it begins."""

    def grammar(self, beginning: str) -> str:
        """What an answer with this beginning, were it free, has to look like."""
        begun = beginning.lstrip()
        calls = begun and (begun.startswith(self.opening) or self.opening.startswith(begun))
        return self.calls if calls else self.answer


@dataclass(frozen=True)
class Plan:
    """How one call is decoded and read.

    Attributes:
        prompt_ids: The rendered messages, tools and instructions.
        contexts: What some models read instead, by name.
        grammar: What the answer must look like, or None.
        fork: A choice that comes before the grammar, or None.
        visible_tokens: Special tokens that are part of the text.
        parser: Makes a reader of one answer.
    """

    prompt_ids: tuple[int, ...]
    contexts: dict[str, tuple[int, ...]]
    grammar: str | None
    fork: Fork | None
    visible_tokens: frozenset[int]
    parser: Callable[[], Parser]


@dataclass(frozen=True)
class _Demands:
    """What a call's parameters ask of the answer.

    Attributes:
        tools: OpenAI tool dictionaries that the model is shown.
        choice: `auto`, `none`, `any`, or the name of the tool to call.
        parallel: Whether one answer may hold several calls; None where nothing was said.
        strict: Hold calls of the model's own choice to their schema.
        schema: What the answer follows where it is no call.
    """

    tools: list[dict[str, Any]]
    choice: str
    parallel: bool | None
    strict: bool
    schema: Schema | None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> _Demands:
        """The demands of a call's parameters."""
        tools = tool_dicts(parameters.get("tools") or ())
        choice = grammars.normalize_choice(parameters.get("tool_choice"), tools)
        wanted = parameters.get("response_format")
        named = response_format(wanted).get("json_schema", {"schema": _ANY_OBJECT}) if wanted else {}
        return cls(
            tools=[] if choice == "none" else tools,
            choice=choice,
            parallel=parameters.get("parallel_tool_calls"),
            strict=bool(parameters.get("strict")),
            schema=named.get("schema") if choice in ("auto", "none") else None,
        )

    @property
    def forced(self) -> bool:
        """Whether the answer has to be a call."""
        return self.choice not in ("auto", "none")

    @property
    def enforced(self) -> bool:
        """Whether the answer is decoded under a grammar."""
        held = bool(self.tools) and (self.strict or self.parallel is False)
        return self.forced or self.schema is not None or held

    def grammar(self, spelling: ToolFormat) -> str | None:
        """What the answer must look like, calls in this spelling."""
        several = self.parallel is not False
        if self.forced:
            return grammars.calls_grammar(spelling, self.tools, self.choice, parallel=bool(self.parallel))
        if self.schema is not None and not self.tools:
            return grammars.schema_grammar(self.schema)
        if self.schema is not None:
            return grammars.union_grammar(spelling, self.tools, self.schema, parallel=several)
        return grammars.strict_grammar(spelling, self.tools, parallel=several) if self.enforced else None

    def fork(self, spelling: ToolFormat) -> Fork | None:
        """The choice that comes first, where calls can be told from objects by their first tokens."""
        if self.schema is None or not self.tools or spelling.untagged:
            return None
        return Fork(
            opening=spelling.opens[0],
            calls=grammars.calls_grammar(spelling, self.tools, "any", parallel=self.parallel is not False),
            answer=grammars.schema_grammar(self.schema),
        )


def plan(
    tokenizer: Any,
    recipe: Recipe,
    mixture: Mixture,
    messages: Sequence[BaseMessage],
    parameters: Mapping[str, Any],
    template_options: Mapping[str, Any],
) -> Plan:
    """How a call is decoded and read.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        recipe: Which models read the call.
        mixture: Of the call.
        messages: The conversation, oldest first.
        parameters: The call's parameters; those that say nothing about the answer's form are left alone.
        template_options: Variables of the chat template.

    Raises:
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: Tools, a choice, a schema or messages that cannot be served.
    """
    demands = _Demands.of(parameters)
    spelling = tool_format(tokenizer, enforced=demands.enforced)
    told = [*messages]
    if demands.schema not in (None, _ANY_OBJECT):
        told = instruct(messages, instructions(demands.schema))
    prompt, contexts = read_conversation(
        tokenizer, recipe, mixture, told, tools=demands.tools, spelling=spelling, options=template_options
    )
    if spelling.name == "native":
        parser: Callable[[], Parser] = partial(
            ResponseTemplateParser, tokenizer, tokenizer.decode(prompt), demands.tools
        )
        return Plan(prompt, contexts, None, None, template_tokens(tokenizer), parser)
    reasoning = reasons(tokenizer)
    opened = reasoning and tokenizer.decode(prompt[-16:]).rstrip().endswith(THINK)
    grammar = demands.grammar(spelling)
    if grammar and reasoning:
        grammar = grammars.after_reasoning(spelling, grammar, opened=opened)
    markers = (*(spelling.markers if demands.tools else ()), *((THINK, END_THINK) if reasoning else ()))
    return Plan(
        prompt,
        contexts,
        grammar,
        # A model that thinks first makes the choice in its thoughts: one grammar for both will do.
        None if reasoning else demands.fork(spelling),
        visible_tokens(tokenizer, markers),
        partial(
            OutputParser,
            spelling,
            tools=bool(demands.tools),
            reasoning=reasoning,
            forced=demands.forced,
            thinking=opened,
        ),
    )


def reasons(tokenizer: Any) -> bool:
    """Whether the chat template is that of a model that thinks before it answers."""
    template = chat_template(tokenizer)
    return THINK in template or END_THINK in template
