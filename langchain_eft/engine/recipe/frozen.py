"""Immutable values that pydantic validates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
)

K = TypeVar("K")


V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that hashes and refuses to change, so that frozen models stay frozen all the way down."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("This mapping is immutable: build a new one instead.")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def known(names: Iterable[str]) -> str:
    """`names` as a readable list for error messages."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
