"""How much a model reasons, as the variables of its chat template say it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jinja2 import meta
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import RequestError

_VARIABLE = "reasoning_effort"
"""The variable of templates that know degrees of reasoning (gpt-oss)."""

_SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off (Qwen; Granite and DeepSeek)."""

_DEGREES = ("low", "medium", "high")
_OFF, _ON = "none", "high"

_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
"""Tags that only transformers knows. They concern training."""


def effort_levels(template: str) -> tuple[str, ...]:
    """The efforts that a chat template can ask for; none where it has no variable for them."""
    return tuple(_choices(template))


def effort_variables(template: str, effort: Any) -> dict[str, Any]:
    """The variables by which a chat template asks for an effort; none for None.

    Args:
        template: The chat template.
        effort: One of its `effort_levels`.

    Raises:
        RequestError: The template cannot ask for it.
    """
    if effort is None:
        return {}
    choices = _choices(template)
    if not isinstance(effort, str) or effort not in choices:
        known = f"It knows {quoted_names(choices)}: give one of them" if choices else "Leave it out"
        raise RequestError(
            f"The model's chat template cannot ask for reasoning_effort={shown(effort)}. {known}, or set the "
            "template's own variables with `chat_template_kwargs`."
        )
    return choices[effort]


def _choices(template: str) -> dict[str, dict[str, Any]]:
    """The variables of each effort."""
    names = _variables(template)
    switches = [name for name in _SWITCHES if name in names][:1]
    off = {_OFF: dict.fromkeys(switches, False)} if switches else {}
    on: dict[str, Any] = dict.fromkeys(switches, True)
    if _VARIABLE in names:
        return off | {degree: on | {_VARIABLE: degree} for degree in _DEGREES}
    return off | {_ON: on} if switches else {}


@lru_cache(maxsize=64)
def _variables(template: str) -> frozenset[str]:
    """The variables that a template reads and does not set."""
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(_GENERATION.sub("", template))))
    except TemplateError:
        return frozenset()
