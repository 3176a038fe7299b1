"""Lone surrogates: half characters, which Python strings may hold and tokenizers cannot read."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_eft.engine.errors import RequestError


def refuse_surrogates(value: object) -> None:
    """Refuse text that holds half a character.

    Args:
        value: A string, or strings in lists and dictionaries.

    Raises:
        RequestError: With the first lone surrogate.
    """
    if isinstance(value, Mapping):
        refuse_surrogates([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_surrogates(item)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            near = value[max(error.start - 20, 0) : error.end + 20]
            raise RequestError(
                f"The text {near!r} has the lone surrogate {value[error.start]!r}, half a character: remove "
                "it, or replace it by text.encode(errors='replace').decode()."
            ) from None
