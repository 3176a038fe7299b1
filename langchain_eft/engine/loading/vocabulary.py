"""Do models mean the same token by the same id, which end an answer, and which has the base never learned?

Token strings are compared, never sizes: equal sizes prove nothing, and sizes of one vocabulary differ by
padding.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from langchain_eft.engine.errors import RecipeError, VocabularyMismatchError

logger = logging.getLogger(__name__)

Difference = tuple[str | None, str | None]
"""The token that an id means in the base and in the small model; None where it means none."""


@dataclass(frozen=True)
class VocabularyReport:
    """How the vocabulary of a small model differs from the base's.

    Attributes:
        sizes: Tokens of the base and of the small model.
        common: Ids that mean the same token in both.
        text_differences: Ids that mean an ordinary token in one of them and not the same in the other.
        special_differences: Ids that mean special or added tokens, or none.
        moved: How many tokens have another id.
    """

    sizes: tuple[int, int]
    common: frozenset[int]
    text_differences: dict[int, Difference]
    special_differences: dict[int, Difference]
    moved: int

    def describe(self) -> str:
        """The figures and a few of the differences, for a message."""
        parts = [f"{self.sizes[0]} and {self.sizes[1]} tokens, {len(self.common)} ids in common"]
        for kind, differences in (("text", self.text_differences), ("special", self.special_differences)):
            if differences:
                shown = ", ".join(
                    f"id {i}: {_show(a)} / {_show(b)}" for i, (a, b) in sorted(differences.items())[:5]
                )
                more = ", ..." if len(differences) > 5 else ""
                parts.append(f"{len(differences)} {kind} ids differ ({shown}{more})")
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
    """Refuse a pair whose ordinary tokens differ; say it, once, if special ones do.

    Raises:
        VocabularyMismatchError: With the report.
    """
    if report.text_differences:
        raise VocabularyMismatchError(
            f"{base!r} and {small!r} do not share a vocabulary: {report.describe()}. Emulated fine-tuning "
            "adds log-probabilities token by token: choose models of one family."
        )
    if report.special_differences:
        _warn(
            f"{base!r} and {small!r} share their text but not all special tokens: {report.describe()}. "
            "Ids that differ are never generated."
        )


@cache
def _warn(message: str) -> None:
    logger.warning(message)


def common_ids(base: Any, small: Sequence[tuple[str, Any]], name: str) -> frozenset[int]:
    """Ids that mean the same token in all models; all others, padding among them, are never generated.

    Args:
        base: The base's tokenizer.
        small: Names and tokenizers of the small models that have one.
        name: Of the base.

    Raises:
        VocabularyMismatchError: Models whose ordinary tokens differ.
    """
    common = frozenset(base.get_vocab().values())
    for other, tokenizer in small:
        report = compare(base, tokenizer)
        require_same_text(report, name, other)
        common &= report.common
    return common


@dataclass(frozen=True)
class TemplateTokens:
    """How a chat template uses special tokens.

    Attributes:
        special: Ids of those that it writes.
        end: Id of the one that it writes after an answer, or None.
    """

    special: frozenset[int]
    end: int | None


_ANSWER = "Zebra"
_TALK = [{"role": "user", "content": "Name one."}, {"role": "assistant", "content": _ANSWER}]
_SYSTEM = [{"role": "system", "content": "Be brief."}]


def template_tokens(tokenizer: Any) -> TemplateTokens:
    """Find the special tokens of a tokenizer's chat template, in what it renders and in its source."""
    template = tokenizer.chat_template
    if not template:
        return TemplateTokens(frozenset(), None)
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    answered = _render(tokenizer, _TALK)
    texts = [answered, _render(tokenizer, [*_SYSTEM, *_TALK, _TALK[0]], add_generation_prompt=True)]
    written = [i for text in texts for i in _ids(tokenizer, text)]
    source = template if isinstance(template, str) else " ".join(template.values())
    named = {i for i, content in special.items() if content in source}
    after = _ids(tokenizer, answered.rpartition(_ANSWER)[2]) if _ANSWER in answered else []
    return TemplateTokens(
        special=frozenset({*written, *named} & special.keys()),
        end=next((i for i in after if i in special), None),
    )


def _render(tokenizer: Any, messages: list[dict[str, str]], **settings: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **settings))
    except Exception:  # noqa: BLE001  (templates refuse what they do not know, each in its own way)
        return ""


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


@dataclass(frozen=True)
class AnswerEndings:
    """A tuned model as far as the end of its answers is concerned.

    Attributes:
        name: Of its behavior.
        turns: Of its chat template.
        stops: Ids that end a text by its configuration and its tokenizer.
    """

    name: str
    turns: TemplateTokens
    stops: frozenset[int]


def end_ids(
    base_stops: Collection[int], answer_endings: Sequence[AnswerEndings], common: Collection[int]
) -> frozenset[int]:
    """Ids that end an answer: those of base and tuned models, and what the templates write after answers."""
    for speaker in answer_endings:
        ends = {*speaker.stops, speaker.turns.end} - {None}
        if ends and not ends & set(common):
            _warn(
                f"Behavior {speaker.name!r} ends its answers with ids "
                f"{sorted(map(int, filter(None, ends)))}, which mean "
                "something else in the base: its answers end at the base's end token, a stop string or "
                "max_tokens."
            )
    told = {i for speaker in answer_endings for i in (*speaker.stops, speaker.turns.end) if i is not None}
    return frozenset({*base_stops, *told} & set(common))


def unscaled_ids(
    base_stops: Collection[int], answer_endings: Sequence[AnswerEndings], common: Collection[int]
) -> frozenset[int]:
    """Ids whose up-scaling weight is 1: the base was never trained on them, so that L / S says nothing.

    A base that ends its texts with a template's end-of-turn token has been trained on that template. For any
    other, these are the special tokens of the tuned model's template and its end tokens, without the base's
    own.
    """
    found = {
        i
        for speaker in answer_endings
        if speaker.turns.end is None or speaker.turns.end not in base_stops
        for i in (*speaker.turns.special, *speaker.stops)
    }
    return frozenset((found - set(base_stops)) & set(common))


def ids_of(tokens: Collection[str], tokenizer: Any) -> frozenset[int]:
    """Ids of tokens that a recipe names.

    Raises:
        RecipeError: One that the tokenizer does not know.
    """
    known = tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in known]
    if unknown:
        raise RecipeError(
            f"unscaled_tokens has {unknown[0]!r}, which is no token of the base: give tokens as the "
            "tokenizer spells them, for example '<|im_end|>'."
        )
    return frozenset(known[token] for token in tokens)


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}
