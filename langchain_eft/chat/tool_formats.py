"""The formats of tool calls in chat templates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

THINK, END_THINK = "<think>", "</think>"
"""The tags around reasoning."""


@dataclass(frozen=True)
class ToolFormat:
    """A text format of tool calls: `begin`, the calls with `join` between them, `end`.

    A call is `call_begin {json} call_end`. In the bare style the name comes before the JSON:
    `call_begin name name_end {arguments} call_end`.

    Attributes:
        name: Name of the format.
        arguments: Key of the arguments in a call's JSON; empty in the bare style.
        begin: Text before the first call.
        call_begin: Text before each call.
        name_end: Text between name and arguments, in the bare style.
        call_end: Text after each call.
        join: Text between two calls.
        end: Text after the last call.
        opens: Tags after which the model writes calls.
        closes: Tag that ends a call; empty where none does.
        untagged: Whether an answer that begins with a JSON object may be a call.
        tokens: Ids of the tags that are single tokens of the vocabulary, reasoning tags included.
    """

    name: Literal["hermes", "llama", "mistral", "native", "prompted"]
    arguments: Literal["arguments", "parameters", ""]
    begin: str = ""
    call_begin: str = ""
    name_end: str = ""
    call_end: str = ""
    join: str = ""
    end: str = ""
    opens: tuple[str, ...] = ()
    closes: str = ""
    untagged: bool = False
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def markers(self) -> tuple[str, ...]:
        """Tags that must stay visible in the text, also where they are special tokens."""
        tags = [*self.opens, self.closes, self.name_end, "[CALL_ID]" if self.name == "mistral" else ""]
        return tuple(tag for tag in tags if tag)

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls as the model writes them.

        Args:
            calls: Name and arguments of each call.
        """
        rendered = [self.render_call(name, json.dumps(args, ensure_ascii=False)) for name, args in calls]
        return f"{self.begin}{self.join.join(rendered)}{self.end}" if rendered else ""

    def render_call(self, name: str, arguments: str) -> str:
        """One call with the text of its arguments, which need not be valid JSON."""
        if not self.arguments:
            return f"{self.call_begin}{name}{self.name_end}{arguments}{self.call_end}"
        quoted = json.dumps(name, ensure_ascii=False)
        body = f'{{"name": {quoted}, "{self.arguments}": {arguments}}}'
        return f"{self.call_begin}{body}{self.call_end}"


HERMES = ToolFormat(
    name="hermes",
    arguments="arguments",
    call_begin="<tool_call>\n",
    call_end="\n</tool_call>",
    join="\n",
    opens=("<tool_call>",),
    closes="</tool_call>",
)
"""The format of Qwen, SmolLM and many others."""


LLAMA = ToolFormat(
    name="llama", arguments="parameters", join="; ", opens=("<|python_tag|>",), untagged=True
)  # fmt: skip
"""The format of Llama 3: JSON without tags, sometimes after `<|python_tag|>`."""


MISTRAL = ToolFormat(
    name="mistral",
    arguments="arguments",
    begin="[TOOL_CALLS][",
    join=", ",
    end="]",
    opens=("[TOOL_CALLS]",),
)
"""The format of Mistral up to tokenizer v7: one JSON list."""


MISTRAL_NAMED = ToolFormat(
    name="mistral", arguments="", call_begin="[TOOL_CALLS]", name_end="[ARGS]", opens=("[TOOL_CALLS]",)
)  # fmt: skip
"""The format of Mistral from tokenizer v11 on: the tag before every call, the name outside the JSON."""


PROMPTED = replace(HERMES, name="prompted")
"""For templates that cannot show tools: `tool_instructions` in the system message, calls as in `HERMES`,
results as user turns with `<tool_response>`."""


NATIVE = replace(HERMES, name="native")
"""Any other format, which the tokenizer's response template reads. No grammar enforces it."""


def detect_tool_format(tokenizer: Any, *, enforced: bool = False) -> ToolFormat:
    """The format of tool calls in the tokenizer's chat template.

    A template without tools, or with another format (Qwen-Coder's XML, for example), gets `PROMPTED`, which
    works with every template. It gets `NATIVE` instead if no grammar is needed and the tokenizer has a
    response template: transformers' description of how to read its answers.

    Args:
        tokenizer: A transformers tokenizer.
        enforced: Whether the answer is decoded under a grammar.
    """
    template = chat_template(tokenizer)
    tool_format = _template_format(template)
    if tool_format is PROMPTED and _shows_tools(template) and response_template(tokenizer) and not enforced:
        tool_format = NATIVE
    markers = (*tool_format.markers, THINK, END_THINK)
    return replace(tool_format, tokens=_single_tokens(tokenizer, markers))


def chat_template(tokenizer: Any) -> str:
    """The text of the tokenizer's chat templates; empty where it has none."""
    template = tokenizer.chat_template or ""
    return "\n".join(template.values()) if isinstance(template, Mapping) else str(template)


def reasons(template: str) -> bool:
    """Whether a chat template belongs to a model that reasons before it answers."""
    return THINK in template or END_THINK in template


def response_template(tokenizer: Any) -> dict[str, Any] | None:
    """The tokenizer's description of how its answers are read, or None."""
    return getattr(tokenizer, "response_template", None)


def visible_tokens(tokenizer: Any, markers: Sequence[str]) -> frozenset[int]:
    """Ids of the markers that are special tokens, which decoding would otherwise leave out of the text."""
    return frozenset(
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content in markers
    )


def _shows_tools(template: str) -> bool:
    return re.search(r"\btools\b", template) is not None


def _template_format(template: str) -> ToolFormat:
    if not _shows_tools(template):
        return PROMPTED
    if "[TOOL_CALLS]" in template:
        return MISTRAL_NAMED if "[ARGS]" in template else MISTRAL
    if "<tool_call>" in template and not re.search(r"<function=|<arg_key>", template):
        return HERMES
    if re.search(r'\{\\?"name\\?": [^{}]{0,60}\\?"parameters\\?": ', template):
        return LLAMA
    return PROMPTED


def _single_tokens(tokenizer: Any, markers: Sequence[str]) -> dict[str, int]:
    """Ids of the markers that are one token. A grammar has to name them by id.

    llguidance treats every added token of the form `<...>` as special, also without the flag.
    """
    return {
        token.content: i
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.content in markers and (token.special or re.fullmatch(r"<.*>", token.content))
    }


def tool_instructions(tools: Sequence[Mapping[str, Any]], tool_format: ToolFormat) -> str:
    """The system message that describes tools where the template cannot.

    Args:
        tools: OpenAI tool dictionaries.
        tool_format: The format that the model is asked to write calls in.
    """
    signatures = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    call = f"{tool_format.begin}{tool_format.render_call('<name>', '{<arguments>}')}{tool_format.end}"
    return (
        "# Tools\n\nYou can call functions. These are available, one JSON signature a line:\n"
        f"<tools>\n{signatures}\n</tools>\n\n"
        "To call a function, write its name and arguments like this, and nothing after it:\n"
        f"{call}\n\n"
        "Results come back between <tool_response> tags. Answer without a call where none is needed."
    )
