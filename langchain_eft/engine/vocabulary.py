"""Do two models mean the same token by the same id? Token strings are compared, never sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_eft.engine.errors import VocabularyMismatchError


@dataclass(frozen=True)
class VocabularyReport:
    """How the vocabulary of a small model differs from the base's.

    Attributes:
        common: Ids that mean the same token in both.
        text_differences: Ids of ordinary tokens that differ, with both strings.
        special_differences: The same for special tokens.
    """

    common: frozenset[int]
    text_differences: dict[int, tuple[str | None, str | None]]
    special_differences: dict[int, tuple[str | None, str | None]]

    def describe(self) -> str:
        """A few of the differences, for a message."""
        parts = []
        for kind, differences in (
            ("text", self.text_differences),
            ("special", self.special_differences),
        ):
            if differences:
                some = ", ".join(f"id {i}: {a!r} / {b!r}" for i, (a, b) in sorted(differences.items())[:5])
                parts.append(f"{len(differences)} {kind} tokens differ ({some})")
        return f"{len(self.common)} ids in common; " + ("; ".join(parts) or "no token differs")


def compare(base: Any, small: Any) -> VocabularyReport:
    """Compare two tokenizers id by id."""
    tokens_base, tokens_small = _by_id(base), _by_id(small)
    special = {*_special_ids(base), *_special_ids(small)}
    differences = {
        i: (tokens_base.get(i), tokens_small.get(i))
        for i in tokens_base.keys() | tokens_small.keys()
        if tokens_base.get(i) != tokens_small.get(i)
    }
    return VocabularyReport(
        common=frozenset(tokens_base.keys() - differences.keys()),
        text_differences={i: pair for i, pair in differences.items() if i not in special},
        special_differences={i: pair for i, pair in differences.items() if i in special},
    )


def require_same_text(report: VocabularyReport, base: str, small: str) -> None:
    """Refuse a pair whose ordinary tokens differ.

    Raises:
        VocabularyMismatchError: With the report.
    """
    if report.text_differences:
        raise VocabularyMismatchError(
            f"{base!r} and {small!r} do not share a vocabulary: {report.describe()}. Emulated fine-tuning "
            "adds log-probabilities token by token: choose models of one family."
        )


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _special_ids(tokenizer: Any) -> set[int]:
    return {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
