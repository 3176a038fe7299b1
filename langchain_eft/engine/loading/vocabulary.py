"""Comparison of vocabularies, ids that end answers, and ids that the base was never trained on.

Vocabularies are compared token by token, never by size. Different vocabularies can have equal sizes, and
padding gives one vocabulary different sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_eft.engine.errors import RecipeError, VocabularyMismatchError

logger = logging.getLogger(__name__)

Difference = tuple[str | None, str | None]
"""The token of an id in the base and in the small model; None if the id has no token there."""


@dataclass(frozen=True)
class VocabularyReport:
    """Differences between the vocabularies of the base and of a small model."""

    sizes: tuple[int, int]  # tokens of the base, and of the small model
    common: frozenset[int]  # ids that mean the same token in both
    # differing ids that mean an ordinary token in at least one of the two
    text_differences: dict[int, Difference]
    # all other differing ids: they mean special or added tokens, or no token
    special_differences: dict[int, Difference]
    moved: int  # number of tokens that have different ids

    def describe(self) -> str:
        """The numbers and a few of the differences, for a message."""
        parts = [f"{self.sizes[0]} and {self.sizes[1]} tokens, {len(self.common)} ids in common"]
        for kind, differences in (("text", self.text_differences), ("special", self.special_differences)):
            if differences:
                examples = ", ".join(
                    f"id {i}: {_show(a)} / {_show(b)}" for i, (a, b) in sorted(differences.items())[:5]
                )
                more = ", ..." if len(differences) > 5 else ""
                parts.append(f"{len(differences)} {kind} ids differ ({examples}{more})")
        if self.moved:
            parts.append(f"{self.moved} tokens have another id")
        return "; ".join(parts)


def _show(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def compare(base: Any, small: Any) -> VocabularyReport:
    """Compare two tokenizers id by id."""
    tokens_base, tokens_small = _by_id(base), _by_id(small)
    differences = {
        i: (tokens_base.get(i), tokens_small.get(i))
        for i in tokens_base.keys() | tokens_small.keys()
        if tokens_base.get(i) != tokens_small.get(i)
    }
    added_base, added_small = set(base.added_tokens_decoder), set(small.added_tokens_decoder)
    text = {
        i
        for i, (a, b) in differences.items()
        if (a is not None and i not in added_base) or (b is not None and i not in added_small)
    }
    ids_small = {token: i for i, token in tokens_small.items()}
    return VocabularyReport(
        sizes=(len(tokens_base), len(tokens_small)),
        common=frozenset(tokens_base.keys() - differences.keys()),
        text_differences={i: pair for i, pair in differences.items() if i in text},
        special_differences={i: pair for i, pair in differences.items() if i not in text},
        moved=sum(ids_small.get(token, i) != i for i, token in tokens_base.items()),
    )


def require_same_text(report: VocabularyReport, base: str, small: str) -> None:
    """Refuse a pair whose ordinary tokens differ. If only special tokens differ, log a warning once.

    Raises:
        VocabularyMismatchError: Ordinary tokens differ; the message has the differences.
    """
    if report.text_differences:
        raise VocabularyMismatchError(
            f"{base!r} and {small!r} do not share a vocabulary: {report.describe()}. Emulated fine-tuning "
            "adds log-probabilities token by token: choose models of one family."
        )
    if report.special_differences:
        _warn(
            f"{base!r} and {small!r} share all ordinary tokens but not all special tokens: "
            f"{report.describe()}. Ids that differ are never generated."
        )


@lru_cache(maxsize=64)
def _warn(message: str) -> None:
    logger.warning(message)


def common_ids(base: Any, small: Sequence[tuple[str, Any]], base_name: str) -> frozenset[int]:
    """Ids that mean the same token in all models. All other ids, such as padding, are never generated.

    Raises:
        VocabularyMismatchError: The ordinary tokens of two models differ.
    """
    common = frozenset(base.get_vocab().values())
    for small_name, tokenizer in small:
        report = compare(base, tokenizer)
        require_same_text(report, base_name, small_name)
        common &= report.common
    return common


@dataclass(frozen=True)
class TemplateTokens:
    """The special tokens of a chat template."""

    special: frozenset[int]  # ids of the special tokens that the template writes
    end: int | None  # id of the special token that it writes after an answer, or None


_ANSWER = "Zebra"
_CONVERSATION = [{"role": "user", "content": "Name one."}, {"role": "assistant", "content": _ANSWER}]
_SYSTEM_MESSAGE = [{"role": "system", "content": "Be brief."}]


def template_tokens(tokenizer: Any) -> TemplateTokens:
    """Find the special tokens of a tokenizer's chat template in its source and in text that it renders."""
    template = tokenizer.chat_template
    if not template:
        return TemplateTokens(frozenset(), None)
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    answered = _render(tokenizer, _CONVERSATION)
    longer = [*_SYSTEM_MESSAGE, *_CONVERSATION, _CONVERSATION[0]]
    texts = [answered, _render(tokenizer, longer, add_generation_prompt=True)]
    rendered_ids = [i for text in texts for i in _ids(tokenizer, text)]
    source = template if isinstance(template, str) else " ".join(template.values())
    source_ids = {i for i, content in special.items() if content in source}
    ids_after_answer = _ids(tokenizer, answered.rpartition(_ANSWER)[2]) if _ANSWER in answered else []
    return TemplateTokens(
        special=frozenset({*rendered_ids, *source_ids} & special.keys()),
        end=next((i for i in ids_after_answer if i in special), None),
    )


def _render(tokenizer: Any, messages: list[dict[str, str]], **settings: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **settings))
    except Exception:  # noqa: BLE001  (each template has its own error for messages that it does not support)
        return ""


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


@dataclass(frozen=True)
class AnswerEndings:
    """How the answers of a tuned model end."""

    name: str  # of its behavior
    template: TemplateTokens
    stops: frozenset[int]  # ids that end a text by its generation config or its tokenizer


def end_ids(
    base_stops: Collection[int], answer_endings: Sequence[AnswerEndings], common: Collection[int]
) -> frozenset[int]:
    """Ids that end an answer: the stop ids of all models, and the ids that templates write after answers."""
    tuned_ends: set[int] = set()
    for endings in answer_endings:
        ends = {i for i in (*endings.stops, endings.template.end) if i is not None}
        tuned_ends |= ends
        if ends and not ends & set(common):
            _warn(
                f"Behavior {endings.name!r} ends its answers with ids {sorted(ends)}, which mean "
                "other tokens in the base. Its answers end at the base's end token, a stop string or "
                "max_tokens."
            )
    return frozenset({*base_stops, *tuned_ends} & set(common))


def unscaled_ids(
    base_stops: Collection[int], answer_endings: Sequence[AnswerEndings], common: Collection[int]
) -> frozenset[int]:
    """Ids whose probability is not scaled by L / S, because the base was never trained on them.

    A base whose stop ids include the end-of-turn token of a template was trained on that template. For any
    other base, these are the special tokens of the tuned model's template and its stop ids, without the
    base's stop ids.
    """
    untrained = {
        i
        for endings in answer_endings
        if endings.template.end is None or endings.template.end not in base_stops
        for i in (*endings.template.special, *endings.stops)
    }
    return frozenset((untrained - set(base_stops)) & set(common))


def ids_of(tokens: Collection[str], tokenizer: Any) -> frozenset[int]:
    """Ids of tokens that a recipe names.

    Raises:
        RecipeError: The tokenizer does not have one of the tokens.
    """
    ids = tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in ids]
    if unknown:
        raise RecipeError(
            f"unscaled_tokens has {unknown[0]!r}, which is not a token of the base: write tokens as the "
            "tokenizer spells them, for example '<|im_end|>'."
        )
    return frozenset(ids[token] for token in tokens)


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}
