"""Questions and answers, taken out of the base model's own conversations."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

TURN = re.compile(r"<\|im_start\|>(user|assistant)\n(.*?)<\|im_end\|>", re.DOTALL)
MAX_PAIRS = 40000


def question_answer_pairs(conversations: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """Return the plain exchanges of conversations [rows, tokens], about `MAX_PAIRS` at most."""
    pairs: list[tuple[str, str]] = []
    for row in conversations:
        if len(pairs) >= MAX_PAIRS:
            break
        text = tokenizer.decode(row.tolist())
        # What the base model answers to tools or schemas is not worth imitating.
        if "# Tools" in text[:400] or "JSON" in text[:200]:
            continue
        for first, second in pairwise(TURN.findall(text)):
            if (first[0], second[0]) == ("user", "assistant") and _fit(first[1], second[1]):
                pairs.append((first[1].strip(), second[1].strip()))
    return pairs


def _fit(question: str, answer: str) -> bool:
    return 8 < len(question) < 300 and 20 < len(answer) < 900
