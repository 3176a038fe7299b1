"""A snapshot of what an engine does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of what an engine does.

    Attributes:
        running: Requests that decode now.
        waiting: Requests in the queue.
        free_blocks: Blocks of KV memory without a user.
        weight_bytes: Memory of all weights; shared ones count once.
        generated_tokens: Tokens of answers since the engine was opened.
        prefilled_tokens: Prompt tokens computed since then; those of preempted requests count again.
        cached_tokens: Prompt tokens that the prefix cache held.
        drafted_tokens: Tokens that were drafted.
        accepted_tokens: Draft tokens that were accepted.
        preemptions: How often a request gave up its memory to an older one.
    """

    running: int
    waiting: int
    free_blocks: int
    weight_bytes: int
    generated_tokens: int
    prefilled_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
