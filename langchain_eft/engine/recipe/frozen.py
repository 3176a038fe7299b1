"""Immutable dictionaries and pydantic models."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that hashes and refuses to change, so that the fields of a frozen model are frozen too."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("This mapping is immutable: build a new one instead.")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class FrozenModel(BaseModel):
    """A pydantic model that hashes, refuses to change, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
