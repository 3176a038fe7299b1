"""Runner V2 with a draft model: greedy answers equal the formula's, and drafts are accepted on the way."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from vllm_tests.engines import V2, Task, ask, engine, metrics, require_equal
from vllm_tests.oracle import Mix
from vllm_tests.tasks import rotated, some_tasks

pytestmark = pytest.mark.skipif(not V2, reason="runner V1 cannot mix and speculate")

CLOSE = [
    Task((1, 40 + i, 41, 42), Mix({name: 0.05 * (i % 3)}), {"mixture": f"{name}={0.05 * (i % 3)}"})
    for i, name in enumerate(["one", "two", "three", "wide", "bare", "own"])
]
"""Mixtures close to the base, which is the draft: many drafts are accepted, and some are not."""


@pytest.fixture(scope="session")
def plain_base(family, tmp_path_factory):
    """The base alone, as a draft model."""
    folder = shutil.copytree(
        family, tmp_path_factory.mktemp("draft") / "base", ignore=shutil.ignore_patterns("eft")
    )
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = config.pop("eft")["base_architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def speculating(draft) -> dict:
    return {"method": "draft_model", "model": str(draft), "num_speculative_tokens": 3}


def test_drafts_do_not_change_answers(oracle, family, plain_base):
    tasks = [*some_tasks(), *CLOSE]

    with engine(family, speculative_config=speculating(plain_base)) as llm:
        for batch in (tasks, rotated(tasks)):
            require_equal(oracle, batch, ask(llm, batch))
        counted = metrics(llm)

    assert counted["spec_decode_num_draft_tokens"] > 500
    assert counted["spec_decode_num_accepted_tokens"] > 100


def test_a_preempted_request_with_drafts_goes_on_with_its_own_mixture(oracle, family, plain_base):
    tasks = [replace(task, tokens=33) for task in some_tasks()]
    small = {"num_gpu_blocks_override": 14, "max_model_len": 192}

    with engine(family, speculative_config=speculating(plain_base), **small) as llm:
        require_equal(oracle, tasks, ask(llm, tasks))
        assert metrics(llm)["num_preemptions"] > 0


def test_drafts_from_the_prompt_do_not_change_answers(oracle, family):
    tasks = [*some_tasks(), Task((1, *[40, 41, 42, 43] * 6), Mix({"two": 0.1}), {"mixture": "two=0.1"})]
    by_prompt = {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 2,
        "prompt_lookup_min": 1,
    }

    with engine(family, speculative_config=by_prompt) as llm:
        require_equal(oracle, tasks, ask(llm, tasks))
        assert metrics(llm)["spec_decode_num_draft_tokens"] > 20
