"""With the attention kernel, whose rows do not see one another, adapters go on in a second pass."""

from unit_tests.interpreter import DEVICE, run_triton_everywhere  # isort: skip

import pytest

from langchain_eft.engine import device_kernels
from langchain_eft.engine.analysis import tree_passes
from langchain_eft.engine.attention import paged
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.request import GivenAnswers
from langchain_eft.engine.rounds import model_pass
from unit_tests.activated import INVOCATIONS, activated_recipe, peft_reference
from unit_tests.helpers import request

PROMPT = [*range(30, 41), *INVOCATIONS["judge"], 44]
BORDER = 8


@pytest.fixture
def kernels(family, tmp_path, monkeypatch):
    run_triton_everywhere(monkeypatch, device_kernels, paged, tree_passes, model_pass)
    config = EngineConfig(device=DEVICE, dtype="float32", kv_cache_tokens=128, block_size=8)
    engine = Engine(activated_recipe(family, tmp_path), config)
    yield engine
    engine.close()


@pytest.fixture
def passes(monkeypatch):
    """The variants and the first position of each pass of the small model."""
    run, seen = CausalModel.__call__, []

    def recording(model, batch, *args, **kwargs):
        if model.invocations:
            seen.append((set(batch.variants.tolist()), int(batch.positions.min())))
        return run(model, batch, *args, **kwargs)

    monkeypatch.setattr(CausalModel, "__call__", recording)
    return seen


@pytest.mark.slow
@pytest.mark.cuda
def test_answers_with_the_kernel_are_those_of_peft(kernels, family, passes):
    oracle, mixture = peft_reference(family, kernels.recipe), {"judge": 1.0}
    *deltas, _ = kernels.stream(request(PROMPT, mixture, max_tokens=3, speculation="off"))
    tokens = [token for delta in deltas for token in delta.tokens]
    assert passes[:2] == [({0}, 0), ({0, 3}, BORDER)]
    assert tokens == oracle.greedy(PROMPT, mixture, 3)
    assert all(variants == {0, 3} for variants, _ in passes[2:]), "rounds run all in one pass"


@pytest.mark.slow
@pytest.mark.cuda
def test_scores_with_the_kernel_are_those_of_peft(kernels, family):
    oracle, mixture = peft_reference(family, kernels.recipe), {"judge": 1.0}
    answers = ((70, 71, 72), (70, 80), (99,))
    for _ in range(2):  # the second time, the prefix cache has the beginning
        scores = kernels.answer_logprobs([GivenAnswers(request(PROMPT, mixture), answers)])
        for answer, logprobs in zip(answers, scores.logprobs[0], strict=True):
            rows = oracle.all_logprobs([*PROMPT, *answer[:-1]], len(answer), mixture)
            assert logprobs == pytest.approx(rows[range(len(answer)), answer].tolist(), abs=1e-3)
