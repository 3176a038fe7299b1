"""vLLM engines in this process, and their answers compared with the oracle's."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm_tests.oracle import Mix, Oracle

V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
SETTINGS = {
    "skip_tokenizer_init": True,
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 16,
    "block_size": 32,
    "enforce_eager": True,
    "max_logprobs": 20,
    "disable_log_stats": False,
    "seed": 0,
}


@dataclass(frozen=True)
class Task:
    """A prompt, what to mix, and how the request says so."""

    prompt: tuple[int, ...]
    mix: Mix
    xargs: dict[str, Any] = field(default_factory=dict)
    tokens: int = 12


@contextmanager
def engine(folder: Path, **settings: Any) -> Iterator[Any]:
    """An engine of vLLM's over a folder."""
    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    llm = LLM(str(folder), **(SETTINGS | settings))
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def ask(llm: Any, tasks: Sequence[Task], **sampling: Any) -> list[Any]:
    """The completions of each task, all in one batch."""
    from vllm import SamplingParams

    fields = {"temperature": 0, "logprobs": 20, "detokenize": False, "ignore_eos": True} | sampling
    prompts = [{"prompt_token_ids": list(task.prompt)} for task in tasks]
    params = [SamplingParams(**fields, max_tokens=t.tokens, extra_args=dict(t.xargs) or None) for t in tasks]
    return [output.outputs for output in llm.generate(prompts, params, use_tqdm=False)]


def require_equal(
    oracle: Oracle, tasks: Sequence[Task], answers: Sequence[Any], tolerance: float = 1e-3
) -> float:
    """Compare greedy answers and their 20 largest log-probabilities with the oracle's.

    Returns:
        The largest difference of a log-probability.
    """
    largest = 0.0
    for task, (completion,) in zip(tasks, answers, strict=True):
        expected, rows = oracle.greedy(task.prompt, task.mix, task.tokens)
        assert list(completion.token_ids) == expected, (task.xargs, list(completion.token_ids), expected)
        for row, reported in zip(rows, completion.logprobs, strict=True):
            assert len(reported) >= 20
            largest = max(largest, *(abs(row[i].item() - value.logprob) for i, value in reported.items()))
    assert largest < tolerance
    return largest


def metrics(llm: Any) -> dict[str, float]:
    """Counters of an engine, by their names without `vllm:`."""
    return {m.name.removeprefix("vllm:"): m.value for m in llm.get_metrics() if hasattr(m, "value")}
