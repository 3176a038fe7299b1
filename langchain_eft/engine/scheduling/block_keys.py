"""Names of the full blocks of a text, by which later texts find what they have in common with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_eft.engine.models.activation import first_own_block
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.block_manager import block_key


class BlockKeys:
    """The keys of a text that grows at its end.

    Keys and values depend on the tokens, and on which variants of which models have seen them. So a key names
    all tokens so far, and the variants that have keys and values of their own in each block.

    Args:
        readers: The terms that read the text.
    """

    def __init__(self, readers: Collection[Term]) -> None:
        self._readers = readers
        self._keys: list[bytes] = []
        self._begun: tuple[bool, ...] | None = None
        self._contents = b""

    def first(self, count: int, tokens: Sequence[int], block_size: int) -> list[bytes]:
        """The keys of the first `count` blocks.

        Args:
            count: How many.
            tokens: The text.
            block_size: Positions per block.
        """
        for number in range(len(self._keys), count):
            before = self._keys[-1] if self._keys else b""
            own = tokens[number * block_size : (number + 1) * block_size]
            begun = tuple(number >= first_own_block(term, block_size) for term in self._readers)
            if begun != self._begun:  # most blocks have the contents of the block before
                self._begun, self._contents = begun, self._name_contents(begun)
            self._keys.append(block_key(before + self._contents, own))
        return self._keys[:count]

    def _name_contents(self, begun: tuple[bool, ...]) -> bytes:
        """Which variants have keys and values of their own in a block, and since where.

        Args:
            begun: For each reader, whether it has.
        """
        own = {
            (term.model, term.variant, term.begin) if has_own else (term.model, 0, 0)
            for term, has_own in zip(self._readers, begun, strict=True)
        }
        return repr(sorted(own)).encode()


def unadapted_readers(readers: Collection[Term]) -> set[Term] | None:
    """Who would have read a text if no adapter had been activated; None if one of them has not.

    A later text, with a later invocation, can go on from what they have computed.
    """
    without = {term.unadapted if term.begin else term for term in readers}
    return without if without < set(readers) else None
