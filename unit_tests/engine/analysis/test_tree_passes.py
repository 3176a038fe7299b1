"""Trees with the attention kernel, whose rows do not see one another: passes have one depth."""

from unit_tests.interpreter import DEVICE, run_triton_everywhere  # isort: skip

import pytest

from langchain_eft.engine import device_kernels
from langchain_eft.engine.analysis import tree_passes
from langchain_eft.engine.attention import paged
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.request import GivenAnswers
from unit_tests.helpers import request


@pytest.mark.slow
@pytest.mark.cuda
def test_scores_with_the_kernel_are_those_of_full_passes(family, reference, monkeypatch):
    run_triton_everywhere(monkeypatch, device_kernels, paged, tree_passes)
    config = EngineConfig(device=DEVICE, dtype="float32", kv_cache_tokens=512, block_size=8)
    kernels = Engine(family.recipe, config)
    shared, tails = tuple(range(30, 60)), ((9, 8), (9, 7, 6))
    answers = ((70, 71, 72, 73), (70, 71, 80), (70, 90), (99,))
    try:
        given = [GivenAnswers(request(shared + tail, {"one": 1.0}), answers) for tail in tails]
        for _ in range(2):  # the second time, the prefix cache has the beginning
            scores = kernels.answer_logprobs(given)
            for tail, of_prompt in zip(tails, scores.logprobs, strict=True):
                for answer, logprobs in zip(answers, of_prompt, strict=True):
                    rows = reference.all_logprobs([*shared, *tail, *answer[:-1]], len(answer), {"one": 1.0})
                    expected = rows[range(len(answer)), answer].tolist()
                    assert logprobs == pytest.approx(expected, abs=1e-3)
        assert scores.cached_tokens > len(shared)
    finally:
        kernels.close()
