"""Tokens of several answers, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages.ai import UsageMetadata


def openai_usage(usages: Mapping[int, UsageMetadata], answers: int) -> dict[str, Any]:
    """Tokens read and written. A prompt counts once, however many answers it has.

    Args:
        usages: The tokens of each answer, by its number. The answers to one prompt are neighbors.
        answers: Answers to each prompt.
    """
    prompts = [usage for number, usage in usages.items() if number % answers == 0]
    read = sum(usage["input_tokens"] for usage in prompts)
    written = sum(usage["output_tokens"] for usage in usages.values())
    cached = sum(usage["input_token_details"]["cache_read"] for usage in prompts)
    reasoning = sum(usage.get("output_token_details", {}).get("reasoning", 0) for usage in usages.values())
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
