"""A base of several ranks decodes like a base of one, and all ranks end together."""

import os
import subprocess
import sys

import psutil
import pytest
import torch
from pydantic import ValidationError

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading import family as family_loading
from langchain_eft.engine.models import tensor_parallel
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.helpers import PATIENCE, greedy_answers

PROMPTS = ([*range(30, 55)], [9, 9, 8], [*range(100, 110)])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes accelerators where there are any")
def test_a_base_of_two_ranks_decodes_like_a_base_of_one(family, reference, tmp_path, monkeypatch):
    """With speculation, several rows and several rounds. Modules of the current folder are not imported.

    While it loads, transformers takes from the environment which device is the leader's.
    """
    ranks, load_module = [], family_loading.load_module

    def load(*args):
        ranks.append(os.environ.get("LOCAL_RANK"))
        return load_module(*args)

    monkeypatch.setattr(family_loading, "load_module", load)
    monkeypatch.setenv("WORLD_SIZE", "7")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    reference.small["reference"].save_pretrained(tmp_path)
    complete = {"reference": str(tmp_path)}
    recipe = Recipe(
        base=family.recipe.base,
        behaviors={
            name: delta.model_copy(update=complete) for name, delta in family.recipe.behaviors.items()
        },
    )
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=1024, block_size=4, tensor_parallel=2))
    try:
        for mixture in ({"one": 1.0}, {"full": 0.5, "two": 0.5}):
            assert greedy_answers(engine, PROMPTS, mixture) == [
                reference.greedy(p, mixture, 8) for p in PROMPTS
            ]
    finally:
        engine.close()
    assert ranks == ["0", None, None]
    assert (os.environ["WORLD_SIZE"], "RANK" in os.environ) == ("7", False)
    assert all(worker.poll() == 0 for worker in engine.family.leader._workers)
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes accelerators where there are any")
def test_the_other_ranks_stop_when_the_leader_dies(family):
    script = f"""
import os, signal, psutil
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
config = EngineConfig(kv_cache_tokens=64, tensor_parallel=2)
engine = Engine(Recipe(base={str(family.folder / "base")!r}), config)
[worker] = [p for p in psutil.Process().children() if "tensor_parallel_worker" in " ".join(p.cmdline())]
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    leader = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    # The follower inherits the output, so the output ends only when the follower has ended too.
    assert leader.returncode == -9
    follower = int(leader.stdout)
    assert not psutil.pid_exists(follower) or psutil.Process(follower).status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes accelerators where there are any")
def test_a_rank_that_cannot_start_is_an_error(family, monkeypatch):
    monkeypatch.setattr(tensor_parallel, "_WORKER", "no_such_module")
    with pytest.raises(RecipeError, match=r"rank 1 of the base ended with status 1.*tensor_parallel"):
        Engine(Recipe(base=family.recipe.base), EngineConfig(kv_cache_tokens=64, tensor_parallel=2))
    assert not torch.distributed.is_initialized()


def test_a_base_that_cannot_be_divided_is_refused(family):
    with pytest.raises(RecipeError, match="tensor_parallel=3 cannot divide the base's 2 KV heads"):
        Engine(family.recipe, EngineConfig(device="cpu", tensor_parallel=3))
    with pytest.raises(ValidationError, match="tensor_parallel=2 and quantization='int8' exclude"):
        EngineConfig(tensor_parallel=2, quantization="int8")
    with pytest.raises(ValidationError, match="tensor_parallel=2 and device_map='auto' exclude"):
        EngineConfig(tensor_parallel=2, device_map="auto")
