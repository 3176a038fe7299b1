"""Which arguments `teach` takes: checked before anything is loaded or written."""

from __future__ import annotations

import re

from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.engine.error_text import shown
from langchain_eft.teaching.errors import TeachingError

LONGEST_NAME = 60
"""Characters. Of four bytes each they still name a folder."""

_NAME = re.compile(r"\w([\w .+-]*[\w.+-])?")


def check_name(name: str) -> None:
    """Refuse a name that no folder can have, or that cannot be written in a mixture such as `a=1,b=0.5`.

    Raises:
        TeachingError: Such a name.
    """
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise TeachingError(
            f"name={shown(name)} cannot be a behavior's name: write letters, digits, spaces and . + - _ "
            f"only, at most {LONGEST_NAME}, such as 'house-style'."
        )


def check_source(source: object, describe: str | None, teacher: object) -> None:
    """Refuse anything but examples, or a description with or without a teacher.

    Raises:
        TeachingError: Both or none of them, an empty description, or a teacher without one.
        RequestError: A description with half a character.
    """
    if source is None and describe is None:
        raise TeachingError("There is nothing to learn from: give a source of examples, or `describe=...`.")
    if source is not None and describe is not None:
        raise TeachingError(f"source={source!r} and `describe` exclude each other: leave out one of the two.")
    if describe is not None:
        refuse_surrogates(describe)
        if not describe.strip():
            raise TeachingError(f"describe={describe!r} is empty: describe the behavior in a sentence.")
    elif teacher is not None:
        raise TeachingError(
            f"teacher={shown(teacher)} answers under a description, and source={source!r} has the answers "
            "already: leave out one of the two."
        )


def check_style(style: str | None) -> None:
    """Refuse a pattern that is no regular expression.

    Raises:
        TeachingError: Such a pattern.
    """
    try:
        re.compile(style or "")
    except re.error as error:
        raise TeachingError(
            f"style={shown(style)} is not a regular expression ({error}): write a backslash before "
            "characters that stand for themselves."
        ) from error
