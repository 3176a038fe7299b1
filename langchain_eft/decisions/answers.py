"""Probabilities of labels, and the answers that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from langchain_eft.decisions.questions import AskedQuestion


def label_scores(logprobs: Sequence[Sequence[float]], *, length_normalized: bool) -> list[float]:
    """The log-probability of each label.

    Args:
        logprobs: Log p of each token of each label.
        length_normalized: Take the mean over a label's tokens instead of the sum.
    """
    return [math.fsum(tokens) / (len(tokens) if length_normalized else 1) for tokens in logprobs]


def normalized(scores: Sequence[float]) -> list[float]:
    """Probabilities that add up to 1, in proportion to the exponentials of scores."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def answer(question: AskedQuestion, probabilities: Sequence[float]) -> dict[str, Any]:
    """The answer to a question, in the form of LangChain's answers and of `/v1/systemone`.

    The confidence is 0 for a uniform distribution and 1 for a certain one. Of a choice it is how far the
    largest probability is from `1/n`; of a score it is how much smaller the expected distance from the most
    probable level is than under a uniform distribution around the middle.

    Args:
        question: What was asked.
        probabilities: One for each of its labels.
    """
    if question.kind == "noul":
        return {"type": "noul", "noul": probabilities[0]}
    count = len(probabilities)
    best = max(range(count), key=probabilities.__getitem__)
    if question.kind == "choice":
        uniform = 1 / count
        confidence = 1.0 if count == 1 else (probabilities[best] - uniform) / (1 - uniform)
        return {
            "type": "choice",
            "choice": question.labels[best],
            "confidence": _clamped(confidence),
            "probabilities": dict(zip(question.labels, probabilities, strict=True)),
        }
    distance = math.fsum(p * abs(level - best) for level, p in enumerate(probabilities))
    spread = math.fsum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return {
        "type": "score",
        "score": math.fsum(level * p for level, p in enumerate(probabilities)),
        "legend": dict(enumerate(question.criteria)),
        "confidence": _clamped(1 - distance / spread),
        "probabilities": dict(enumerate(probabilities)),
    }


def _clamped(confidence: float) -> float:
    return min(max(confidence, 0.0), 1.0)
