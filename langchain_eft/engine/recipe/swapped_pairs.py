"""Pairs whose names say that tuned model and reference are swapped.

Swapped, `log F - log S` takes away what fine-tuning taught, at a positive weight. Names only hint at this:
`langchain-eft diagnose` measures it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from langchain_eft.engine.recipe.behaviors import Recipe

_TUNED = frozenset(
    {"aligned", "assistant", "chat", "dpo", "finetuned", "instruct", "it", "rlhf", "sft", "tuned"}
)
"""Words in the names of fine-tuned models."""

_UNTUNED = frozenset({"base", "pretrained", "pt"})
"""Words in the names of models before fine-tuning."""


def swapped(tuned: str, reference: str) -> bool:
    """Whether two names say that `tuned` is the model before fine-tuning, and `reference` the one after it.

    One of the names says what kind of model it is, and the name of `tuned` has no other words than that of
    `reference`: `org/model` and `org/model-Instruct`, or `org/model-Base` and `org/model`.

    Args:
        tuned: Hub id or path of the model that is given as tuned.
        reference: That of the model that is given as reference.
    """
    words, others = _words(tuned), _words(reference)
    if words & _TUNED or others & _UNTUNED:
        return False
    return bool(words & _UNTUNED or others & _TUNED) and words - _UNTUNED <= others


def swapped_behaviors(recipe: Recipe) -> Iterator[str]:
    """The behaviors of a recipe whose tuned model and reference seem to be swapped."""
    for name, delta in recipe.behaviors.items():
        if delta.tuned and delta.reference and swapped(str(delta.tuned), str(delta.reference)):
            yield name


def _words(source: str) -> frozenset[str]:
    """The words of a model's own name, without its owner, folder and revision."""
    name = source.partition("@")[0].rstrip("/").rpartition("/")[2]
    return frozenset(re.split(r"[\W_]+", name.lower()))
