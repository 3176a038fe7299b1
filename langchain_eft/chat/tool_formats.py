"""How each chat template spells tool calls."""

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
    """A spelling of tool calls: `begin`, calls of `call_begin {json} call_end` joined, `end`.

    In the bare style the name stands before the JSON: `call_begin name name_end {arguments} call_end`.

    Attributes:
        name: What the format is called.
        arguments: Key of the arguments in a call's JSON; empty in the bare style.
        begin: Text before the first call.
        call_begin: Text before each call.
        name_end: Text between name and arguments, in the bare style.
        call_end: Text after each call.
        join: Text between two calls.
        end: Text after the last call.
        opens: Tags after which the model writes calls.
        closes: Tag that ends a call; empty where none does.
        untagged: An answer that begins with a JSON object may be a call.
        tokens: Tags, those of reasoning included, that are single tokens of the vocabulary, by id.
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
        """Tags that must stay visible in the text, special tokens or not."""
        tags = [*self.opens, self.closes, self.name_end, "[CALL_ID]" if self.name == "mistral" else ""]
        return tuple(tag for tag in tags if tag)

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model writes them."""
        spelled = [self.spell(name, json.dumps(args, ensure_ascii=False)) for name, args in calls]
        return f"{self.begin}{self.join.join(spelled)}{self.end}" if spelled else ""

    def spell(self, name: str, arguments: str) -> str:
        """One call with the text of its arguments, valid JSON or not."""
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
"""Qwen, SmolLM and many others."""


LLAMA = ToolFormat(
    name="llama", arguments="parameters", join="; ", opens=("<|python_tag|>",), untagged=True
)  # fmt: skip
"""Llama 3: bare JSON, sometimes after `<|python_tag|>`."""


MISTRAL = ToolFormat(
    name="mistral",
    arguments="arguments",
    begin="[TOOL_CALLS][",
    join=", ",
    end="]",
    opens=("[TOOL_CALLS]",),
)
"""Mistral up to tokenizer v7: one JSON list."""


MISTRAL_NAMED = ToolFormat(
    name="mistral", arguments="", call_begin="[TOOL_CALLS]", name_end="[ARGS]", opens=("[TOOL_CALLS]",)
)  # fmt: skip
"""Mistral from tokenizer v11 on: the tag before every call, the name outside the JSON."""


PROMPTED = replace(HERMES, name="prompted")
"""For templates that cannot show tools: `instructions` in the system message, calls in the Hermes spelling,
results as user turns with `<tool_response>`."""


NATIVE = replace(HERMES, name="native")
"""A spelling of the tokenizer's own, which its response template reads and no grammar here can write."""


def tool_format(tokenizer: Any, *, enforced: bool = False) -> ToolFormat:
    """The format that the tokenizer's chat template was written for.

    A template that shows no tools, or spells calls in a way not known here (Qwen-Coder's XML, for example),
    gets the prompted format, which works with any template; or its own, if the tokenizer carries a response
    template (transformers' description of how to read its answers) and nothing has to be enforced.

    Args:
        tokenizer: A transformers tokenizer.
        enforced: The answer will be decoded under a grammar.
    """
    template = chat_template(tokenizer)
    chosen = _spelling(template)
    if chosen is PROMPTED and _shows_tools(template) and response_template(tokenizer) and not enforced:
        chosen = NATIVE
    return replace(chosen, tokens=_single_tokens(tokenizer, (*chosen.markers, THINK, END_THINK)))


def chat_template(tokenizer: Any) -> str:
    """The text of the tokenizer's chat template, or of all it has; empty where it has none."""
    template = tokenizer.chat_template or ""
    return "\n".join(template.values()) if isinstance(template, Mapping) else str(template)


def response_template(tokenizer: Any) -> dict[str, Any] | None:
    """How the tokenizer says that its answers are read, if it does."""
    return getattr(tokenizer, "response_template", None)


def visible_tokens(tokenizer: Any, markers: Sequence[str]) -> frozenset[int]:
    """Ids of the markers that the tokenizer would drop from the text, as special tokens."""
    return frozenset(
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content in markers
    )


def _shows_tools(template: str) -> bool:
    return re.search(r"\btools\b", template) is not None


def _spelling(template: str) -> ToolFormat:
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
    """Markers that are one token, and that a grammar must therefore name by id.

    llguidance takes added tokens of the form `<...>` as special too, whatever their flag says.
    """
    return {
        token.content: i
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.content in markers and (token.special or re.fullmatch(r"<.*>", token.content))
    }


def instructions(tools: Sequence[Mapping[str, Any]], spelling: ToolFormat) -> str:
    """What a system message says of tools where the template knows none."""
    shown = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    call = f"{spelling.begin}{spelling.spell('<name>', '{<arguments>}')}{spelling.end}"
    return (
        "# Tools\n\nYou can call functions. These are available, one JSON signature a line:\n"
        f"<tools>\n{shown}\n</tools>\n\n"
        "To call a function, write its name and arguments like this, and nothing after it:\n"
        f"{call}\n\n"
        "Results come back between <tool_response> tags. Answer without a call where none is needed."
    )
