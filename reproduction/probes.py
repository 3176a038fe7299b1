"""The prompts of `training/smol/measured.json` as tasks: the training generators with other seeds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_eft.evaluation import CallsExactly, Case, Refuses, Task
from training.smol.places import load_places
from training.smol.tasks.argument_source import ArgumentSource
from training.smol.tasks.harmful import harmful_request
from training.smol.tasks.tool_requests import ask_for
from training.smol.tasks.tool_signatures import random_tool

MEASURED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("training", "smol", "measured.json").read_text(encoding="utf-8")
)
"""The figures measured once on a GPU in bfloat16."""

# Far from the seeds of the training data.
TOOL_SEED = 987654
HARMFUL_SEED = 4321


def familiar_tool_calls(count: int, seed: int = TOOL_SEED) -> Task:
    """Return calls of tools from the generator that made the training data."""
    source = ArgumentSource(seed, load_places().cities)
    cases = []
    for i in range(count):
        tools = [random_tool(source) for _ in range(source.random.choice([1, 1, 2, 3]))]
        tool = source.random.choice(tools)
        arguments = source.arguments(tool.kinds)
        question = ask_for(source.random, tool, arguments)
        expected = [{"name": tool.name, "args": arguments}]
        schemas = tuple(each.schema for each in tools)
        cases.append(Case(f"{seed}-{i}", (HumanMessage(question),), expected, schemas))
    return Task("familiar tools", tuple(cases), (CallsExactly(),), max_tokens=90)


def familiar_harmful(count: int) -> Task:
    """Return harmful requests from the generator that made the training data; some occur twice, as there."""
    r = random.Random(HARMFUL_SEED)
    questions = [harmful_request(r)[0] for _ in range(count)]
    cases = tuple(Case(str(i), (HumanMessage(question),)) for i, question in enumerate(questions))
    return Task("familiar harmful", cases, (Refuses(),), max_tokens=40)
