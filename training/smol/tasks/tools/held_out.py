"""Requests for one call, with words and sentences that the training does not have."""

from __future__ import annotations

from langchain_core.messages import HumanMessage

from langchain_eft.engine.loading.tokenizers import load_tokenizer
from langchain_eft.evaluation import CallsExactly, Case, Task
from langchain_eft.presets import load_preset
from training.smol.tasks.tools.conversations import single_call
from training.smol.tasks.tools.words import Part, Words, vocabulary_words

SEED = 5


def held_out_tool_calls(part: Part, count: int = 256) -> Task:
    """Calls of generated tools: correct if exact.

    Args:
        part: `Part.DEVELOPMENT` to choose by, `Part.TEST` for the final figure.
        count: Number of requests.
    """
    words = Words(vocabulary_words(load_tokenizer(load_preset("smol").recipe)), SEED, part)
    cases = []
    for i in range(count):
        tools, request, (name, arguments) = single_call(words)
        shown = tuple(tool.schema for tool in tools)
        expected = [{"name": name, "args": arguments}]
        cases.append(Case(f"{part.name.lower()}-{i}", (HumanMessage(request["content"]),), expected, shown))
    return Task(f"{part.name.lower()} tools", tuple(cases), (CallsExactly(),), max_tokens=160)
