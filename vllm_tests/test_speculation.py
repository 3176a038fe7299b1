"""Runner V2 with a draft model: greedy answers equal the formula's, and drafts are accepted on the way."""

from __future__ import annotations

import json
import shutil

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


@pytest.mark.parametrize("settings", [{}, {"num_gpu_blocks_override": 10, "max_model_len": 192}])
def test_drafts_do_not_change_answers(oracle, family, plain_base, settings):
    tasks = [*some_tasks(), *CLOSE]

    with engine(family, speculative_config=speculating(plain_base), **settings) as llm:
        for batch in (tasks, rotated(tasks)):
            require_equal(oracle, batch, ask(llm, batch))
        counted = metrics(llm)

    assert counted["spec_decode_num_draft_tokens"] > 500
    assert counted["spec_decode_num_accepted_tokens"] > 100
    assert (counted["num_preemptions"] > 0) == bool(settings)
