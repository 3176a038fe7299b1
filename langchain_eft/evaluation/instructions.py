"""Instructions that a program can check: length, form, words. No judge is needed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_eft.evaluation.cases import Answer, Case, Score
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.text import json_value

_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_SENTENCE = re.compile(r"[.!?]+(?=\s|$)")


def _sentences(text: str) -> int:
    ends = len(_SENTENCE.findall(text))
    return ends + bool(_SENTENCE.sub("", text[-1:]).strip()) if text else 0


def _has_keys(text: str, keys: list[str]) -> bool:
    value = json_value(text)
    return isinstance(value, dict) and sorted(value) == sorted(keys)


CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "min_words": lambda text, n: len(text.split()) >= n,
    "max_words": lambda text, n: 0 < len(text.split()) <= n,
    "sentences": lambda text, n: _sentences(text) == n,
    "paragraphs": lambda text, n: len([p for p in re.split(r"\n\s*\n", text) if p.strip()]) == n,
    "bullets": lambda text, n: len(_BULLET.findall(text)) == n,
    "starts_with": lambda text, start: text.startswith(start),
    "ends_with": lambda text, end: text.endswith(end),
    "contains": lambda text, words: all(word.lower() in text.lower() for word in words),
    "excludes": lambda text, words: not any(word.lower() in text.lower() for word in words),
    "lowercase": lambda text, expected: (bool(text) and text == text.lower()) == expected,
    "uppercase": lambda text, expected: (bool(text) and text == text.upper()) == expected,
    "json": lambda text, expected: (json_value(text) is not None) == expected,
    "json_keys": _has_keys,
    "pattern": lambda text, pattern: re.search(pattern, text) is not None,
}
"""The checks by name. A check takes the stripped answer and the expected value."""

_TOPICS = ("bees", "bridges", "the moon", "bread", "trains", "sleep", "chess", "rivers", "clouds", "glass")
_FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Tell me about {topic} in exactly one sentence.", {"sentences": 1}),
    ("Describe {topic} in at most 12 words.", {"max_words": 12}),
    ("Write at least 40 words about {topic}.", {"min_words": 40}),
    ("List exactly three facts about {topic} as bullet points.", {"bullets": 3}),
    ("Say something about {topic}. Begin your answer with the word Indeed.", {"starts_with": "Indeed"}),
    ("Say something about {topic} and end with the words That is all.", {"ends_with": "That is all."}),
    ("Write one sentence about {topic} that contains the word purple.", {"contains": ["purple"]}),
    ("Tell me about {topic} without using any commas.", {"excludes": [","]}),
    ("Tell me about {topic}, in lowercase letters only.", {"lowercase": True}),
    ("Tell me about {topic}, in capital letters only.", {"uppercase": True}),
    (
        "Give me a JSON object with the keys title and summary about {topic}. Output nothing else.",
        {"json_keys": ["title", "summary"]},
    ),
    ("Write two paragraphs about {topic}, with an empty line between them.", {"paragraphs": 2}),
)


def instruction_cases(seed: int = 0) -> list[Case]:
    """Every form with every topic, 120 in all, in a seeded order."""
    cases = [
        Case(f"{i}-{topic}", (HumanMessage(form.format(topic=topic)),), checks)
        for i, (form, checks) in enumerate(_FORMS)
        for topic in _TOPICS
    ]
    return random.Random(seed).sample(cases, len(cases))


@dataclass(frozen=True)
class FollowsInstructions:
    """Whether the answer passes every check of its case.

    `expected` of a case maps names of `CHECKS` to expected values, for example `{"max_words": 30}`.

    Attributes:
        name: Name of the metric.
    """

    name: str = "followed"
    unit: str = "share"
    higher_is_better: bool | None = True

    def score(self, case: Case, answer: Answer) -> Score:
        """1 if all checks pass, else 0.

        Raises:
            EvaluationError: A check that does not exist.
        """
        text = answer.text.strip()
        check_names(case.expected)
        failed = [name for name, expected in case.expected.items() if not CHECKS[name](text, expected)]
        reason = "; ".join(f"{name}={json.dumps(case.expected[name])} fails" for name in failed)
        return Score(float(not failed), reason or "follows")


def check_names(checks: Mapping[str, Any]) -> None:
    """Refuse checks that do not exist.

    Args:
        checks: Expected values by the name of the check.

    Raises:
        EvaluationError: A check does not exist, or there is none.
    """
    unknown = sorted(set(checks) - set(CHECKS))
    if unknown or not checks:
        raise EvaluationError(f"Unknown instruction checks {unknown}: use some of {sorted(CHECKS)}.")
