"""Greedy answers and their log-probabilities equal the formula's, computed by full forward passes.

Each engine answers a batch of mixtures twice: the second time each prompt has another one's mixture.
`make test-vllm` runs this file on both of vLLM's runners.
"""

from __future__ import annotations

import pytest

from vllm_tests.engines import V2, ask, engine, metrics, require_equal
from vllm_tests.oracle import Oracle
from vllm_tests.tasks import rotated, some_tasks, without
from vllm_tests.tiny import SECTION

TASKS = some_tasks()


def answer_twice(oracle, family, tasks=TASKS, **settings) -> dict[str, float]:
    """Compare both answers of each task, and return the engine's counters."""
    with engine(family, **settings) as llm:
        assert llm.llm_engine.vllm_config.use_v2_model_runner is V2
        for batch in (tasks, rotated(tasks)):
            require_equal(oracle, batch, ask(llm, batch))
        return metrics(llm)


def test_blocks_of_a_common_prefix_are_shared_by_all_mixtures(oracle, family):
    counted = answer_twice(oracle, family)

    assert counted["prefix_cache_hits"] > 300


def test_prompts_are_read_in_chunks_beside_answers(oracle, family):
    answer_twice(oracle, family, max_num_batched_tokens=48, max_num_seqs=5, enable_prefix_caching=False)


def test_a_preempted_request_goes_on_with_its_own_mixture(oracle, family):
    counted = answer_twice(oracle, family, num_gpu_blocks_override=12, max_model_len=192)

    assert counted["num_preemptions"] > 0


def test_unscaled_tokens_follow_the_small_models(family):
    unscaled = list(range(20, 120))
    section = SECTION | {"unscaled": unscaled}

    answer_twice(Oracle(family, unscaled), family, hf_overrides={"eft": section})


@pytest.mark.full  # the server of the other tests compiles its models too
@pytest.mark.skipif(V2, reason="Triton's interpreter cannot run compiled code")
def test_compiled_models_answer_alike(oracle, family):
    answer_twice(oracle, family, enforce_eager=False)


@pytest.mark.full
@pytest.mark.skipif(V2, reason="one runner is enough for what the model does by itself")
def test_two_processes_share_every_model(oracle, family, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else each process wants a memory node
    models = {name: model for name, model in SECTION["models"].items() if not name.startswith("wide")}
    behaviors = {name: pair for name, pair in SECTION["behaviors"].items() if name != "wide"}
    section = SECTION | {"models": models, "behaviors": behaviors}

    answer_twice(
        oracle, family, without(TASKS, "wide"), hf_overrides={"eft": section}, tensor_parallel_size=2
    )
