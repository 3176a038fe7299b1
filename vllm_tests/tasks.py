"""Requests with other mixtures each, which one batch answers."""

from __future__ import annotations

import random
from dataclasses import replace

from vllm_tests.engines import Task
from vllm_tests.oracle import Mix

_SHARED = 70
"""Tokens that some prompts have in common: two blocks of keys and values, and a part of a third."""

MIXES = [
    (Mix({"one": 1.0}), {}),
    (Mix(), {"mixture": "none"}),
    (Mix({"two": 0.7}), {"mixture": "two=0.7"}),
    (Mix({"one": 0.5, "two": 0.5, "three": 0.3}), {"mixture": "one=0.5,two=0.5,three=0.3"}),
    (Mix({"wide": 1.0}), {"mixture": "wide=1"}),
    (Mix({"bare": 1.0}), {"mixture": "bare=1"}),
    (Mix({"own": 0.8}), {"mixture": "own=0.8"}),
    (
        Mix({"own": 0.4, "one": 0.5, "wide": 0.2, "bare": 0.3}),
        {"mixture": "own=0.4,one=0.5,wide=0.2,bare=0.3"},
    ),
    (Mix({"one": 1.0, "two": 0.5}, strength=1.4), {"mixture": "one=1,two=0.5", "upscale_strength": 1.4}),
    (Mix({"one": 1.0}, top_p=0.6), {"mixture": "one=1", "upscale_top_p": 0.6}),
    (Mix({"one": lambda p: 1.5 - 1.5 * min(p / 6, 1)}), {"mixture": "one=1.5..0/6"}),
    (
        Mix({"three": lambda p: 1.0 if p < 4 else 0.2, "two": lambda p: 0.9 * min(p / 9, 1)}, 0.8, 0.7),
        {"mixture": "three=1/4:0.2,two=0..0.9/9", "upscale_strength": 0.8, "upscale_top_p": 0.7},
    ),
]


def some_tasks() -> list[Task]:
    """A task for each mix; prompts of many lengths, and every third begins alike."""
    draw = random.Random(3)
    shared = [draw.randrange(3, 500) for _ in range(_SHARED)]
    tasks = []
    for i, (mix, xargs) in enumerate(MIXES):
        own = [draw.randrange(3, 500) for _ in range(draw.choice([3, 9, 30, 70]))]
        tasks.append(Task((1, *(shared if i % 3 == 0 else ()), *own), mix, xargs))
    return tasks


def rotated(tasks: list[Task]) -> list[Task]:
    """The same prompts with one another's mixes: what the prefix cache holds must not depend on them."""
    others = [*tasks[1:], tasks[0]]
    return [
        replace(task, mix=other.mix, xargs=other.xargs) for task, other in zip(tasks, others, strict=True)
    ]


def without(tasks: list[Task], behavior: str) -> list[Task]:
    """The tasks that do not mix a behavior."""
    return [task for task in tasks if behavior not in task.mix.weights]
