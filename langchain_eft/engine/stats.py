"""Counters of an engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of an engine's counters.

    Attributes:
        running: Requests that are running.
        waiting: Requests in the queue.
        blocks: Blocks of KV memory.
        free_blocks: How many of them no request uses.
        weight_bytes: Memory of all weights; shared weights count once.
        generated_tokens: Answer tokens since the engine was opened.
        prefilled_tokens: Prompt tokens computed since then; a preempted request counts again.
        cached_tokens: Prompt tokens that were found in the prefix cache.
        drafted_tokens: Draft tokens.
        accepted_tokens: Draft tokens that were accepted.
        preemptions: How often a request was preempted to free memory for an older one.
    """

    running: int
    waiting: int
    blocks: int
    free_blocks: int
    weight_bytes: int
    generated_tokens: int
    prefilled_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
