"""Questions with given answers: what is asked, which answers there are, and the words of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from langchain_eft.chat.media import UnsupportedContent
from langchain_eft.chat.parameters import MOST_ANSWERS, refuse_unknown
from langchain_eft.decisions.content import as_text
from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import RequestError

Kind = Literal["noul", "choice", "score"]

MOST_LABELS = 256
"""Most labels of one question."""

LONGEST_LABEL = 1024
"""Most characters of one label."""

_FIELDS = {"type", "instructions", "criteria"}

_ASKS: dict[Kind, str] = {
    "noul": "Answer Yes or No only.",
    "choice": "Answer with one of these options only.",
    "score": "Answer with the number of the best level only.",
}


@dataclass(frozen=True)
class AskedQuestion:
    """A question, and all answers to it.

    Attributes:
        name: The caller's name for it.
        kind: `noul` (yes or no), `choice` (labels without an order) or `score` (levels, lowest first).
        instructions: The question.
        labels: The answers, in the words that the model would use.
        descriptions: What each of them means; empty where nobody says.
        criteria: The same as the caller gave them.
    """

    name: str
    kind: Kind
    instructions: str
    labels: tuple[str, ...]
    descriptions: tuple[str, ...]
    criteria: tuple[Any, ...]

    def prompt(self, state: str) -> str:
        """The message that asks it. The state comes first, so that questions about one state share it.

        Args:
            state: What it is about.
        """
        bullet = "- " if self.kind == "choice" else ""
        listed = [
            f"{bullet}{label}: {description}" if description else f"{bullet}{label}"
            for label, description in zip(self.labels, self.descriptions, strict=True)
            if description or self.kind != "noul"
        ]
        question = "\n".join(part for part in (self.instructions, *listed, _ASKS[self.kind]) if part)
        return f"{state}\n\n{question}"


def parse_questions(
    questions: Mapping[str, Any], unsupported_content: UnsupportedContent = "error"
) -> list[AskedQuestion]:
    """Questions as LangChain's classes, or as dictionaries of the same fields.

    Args:
        questions: The questions by name.
        unsupported_content: What happens to media in them: `describe` or `error`.

    Raises:
        RequestError: No questions, one that cannot be answered, or too many labels.
    """
    if not isinstance(questions, Mapping) or not questions:
        raise RequestError(f"questions={shown(questions)} must map names to questions, at least one.")
    parsed = [_parse(str(name), question, unsupported_content) for name, question in questions.items()]
    total = sum(len(question.labels) for question in parsed)
    if total > MOST_ANSWERS:
        raise RequestError(
            f"{len(parsed)} questions with {total} labels together are too many: a call may have "
            f"{MOST_ANSWERS} labels. Ask in several calls; they share what they read of the state."
        )
    return parsed


def _parse(name: str, question: Any, unsupported_content: UnsupportedContent) -> AskedQuestion:
    fields = question.model_dump() if hasattr(question, "model_dump") else question
    where = f"The question {name!r}"
    if not isinstance(fields, Mapping):
        raise RequestError(
            f"{where} is {shown(question)}: give a Noul, Choice or Score, or a dictionary of its fields."
        )
    kind: Any = fields.get("type")
    if kind == "box":
        raise RequestError(
            f"{where} asks for a box in an image, and the models read text only: ask a Noul, Choice or Score."
        )
    if kind not in get_args(Kind):
        raise RequestError(f"{where} has type={shown(kind)}: use {quoted_names(get_args(Kind))}.")
    refuse_unknown(fields, _FIELDS, where.lower())
    read = partial(as_text, unsupported_content=unsupported_content, where=where)
    labels, criteria = _options(kind, fields.get("criteria"), where)
    if len(labels) > MOST_LABELS:
        raise RequestError(
            f"{where} has {len(labels)} labels: a question may have {MOST_LABELS}. Group them, and ask again "
            "within the group."
        )
    instructions = read(fields.get("instructions"))
    return AskedQuestion(name, kind, instructions, labels, tuple(map(read, criteria)), criteria)


def _options(kind: Kind, criteria: Any, where: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The labels of a question, and what the caller says about each."""
    if kind == "noul":
        outcomes = criteria or {}
        if not isinstance(outcomes, Mapping) or not set(outcomes) <= {"true", "false"}:
            raise RequestError(f"{where} has criteria={shown(criteria)}: describe 'true', 'false', or both.")
        return ("Yes", "No"), (outcomes.get("true"), outcomes.get("false"))
    if kind == "score":
        if isinstance(criteria, str) or not isinstance(criteria, Sequence) or len(criteria) < 2:
            raise RequestError(
                f"{where} has criteria={shown(criteria)}: list the levels, lowest first, at least two."
            )
        return tuple(map(str, range(len(criteria)))), tuple(criteria)
    if not isinstance(criteria, Mapping) or not criteria:
        raise RequestError(
            f"{where} has criteria={shown(criteria)}: map labels to descriptions, at least one."
        )
    for label in criteria:
        if not isinstance(label, str) or not label.strip():
            raise RequestError(f"{where} has the label {shown(label)}: a label is a text that is not blank.")
        if len(label) > LONGEST_LABEL:
            raise RequestError(
                f"{where} has a label of {len(label)} characters: a label may have {LONGEST_LABEL}. Describe "
                "it in its criterion."
            )
    return tuple(criteria), tuple(criteria.values())
