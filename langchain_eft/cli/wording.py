"""Errors of the package in the words of the command line: `max_tokens=0` is `--max-tokens 0` there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PARAMETER_OF = {
    "behaviors": "behavior",
    "folder": "output",
    "mixture": "mix",
    "url": "base_url",
    "weights": "mix",
}
"""Parameters of commands whose name is not that of the field that they fill."""

_FIELD = re.compile(r"(?:^|(?<=; ))([a-z_]+)(?:\.([^=]+))?(=|: )")
_PYTHON_ONLY = re.compile(r",? or set `([a-z_]+)=[^`]*`")
_REMEDY = re.compile(r"`([a-z_]+)(=[^`]*)?`(?: \(--[a-z-]+\))?")


class Wording:
    """The options of one command, by the names of the fields that errors speak of.

    Args:
        parameters: The command's parameters, as typer builds them.
    """

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        named = {each.name: each for each in parameters}
        self._options = {name: each for name, each in named.items() if each.opts[0].startswith("--")}
        self._arguments = named.keys() - self._options

    def translated(self, text: str) -> str:
        """An error's message with options instead of fields. Remedies that need Python are left out."""
        text = _FIELD.sub(self._value, text)
        text = _PYTHON_ONLY.sub(lambda match: match[0] if self._option(match[1]) else "", text)
        return _REMEDY.sub(self._remedy, text)

    def _option(self, field: str) -> Any:
        return self._options.get(_PARAMETER_OF.get(field, field))

    def _value(self, match: re.Match[str]) -> str:
        """`weights.pirate=` as `--mix pirate=`, `seed=` as `--seed `, `url: ` as `--base-url: `.

        An argument `name=` is `NAME `.
        """
        option, rest = self._option(match[1]), match[3]
        if match[1] in self._arguments and rest == "=":
            return f"{match[1].upper()} "
        if option is None:
            return match[0]
        if rest == "=":
            rest = f" {match[2]}=" if match[2] else " "
        return f"{option.opts[0]}{rest}"

    def _remedy(self, match: re.Match[str]) -> str:
        option = self._option(match[1])
        if option is None:
            return match[0]
        return f"{option.opts[0]} {option.metavar}" if match[2] and option.metavar else str(option.opts[0])
