"""Rounds on a device without numbers: what a GPU would refuse is seen without one."""

from unit_tests.interpreter import compiled_for_gpus  # isort: skip

from contextlib import contextmanager

import pytest
import torch

from langchain_eft.engine.attention import triton as attention_kernels
from unit_tests.helpers import slow
from unit_tests.meta_device import (
    EXTRAS,
    META,
    OneDevice,
    kinds_of_rounds,
    meta_device,
    meta_family,
    meta_state,
    run_prompts,
    run_round,
)


@pytest.mark.parametrize("lengths", [(2,), *slow((0, 4, 6))])
@pytest.mark.parametrize("rows", [4, *slow(1)])
def test_no_kind_of_round_mixes_devices_or_asks_for_a_value(rows, lengths):
    family = meta_family()
    with meta_device():
        state = meta_state(family)
        run_prompts(state)
        shapes = [shape for shape in kinds_of_rounds(family, rows) if shape.num_draft_tokens in lengths]
        assert len(shapes) >= 2 * len(EXTRAS) * len(lengths)
        for shape in shapes:
            run_round(shape, state)


def test_attention_launches_its_kernels_on_the_device_of_its_tensors(monkeypatch):
    """The layers of one model may be on several devices, and Triton launches on the current one."""
    family, launched, current = meta_family(), [], []

    @contextmanager
    def on_device(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(attention_kernels, "on_device", on_device)
    attention = {"_attend", "_merge"}
    with meta_device(
        launch=lambda run, *args, **kwargs: launched.append((run.__self__.fn.__name__, *current))
    ):
        run_prompts(meta_state(family))
    assert {each for each in launched if each[0] in attention} == {(name, META) for name in attention}


def test_a_host_tensor_and_a_question_to_the_device_are_seen():
    number = torch.zeros(3, dtype=torch.int64, device=META)
    with OneDevice(), pytest.raises(AssertionError, match="mixes devices"):
        number[torch.tensor([0, 1])]
    with OneDevice(), pytest.raises(AssertionError, match="asks the device"):
        number.nonzero()


COMPILE = """
from unit_tests.meta_device import EXTRAS, kinds_of_rounds, meta_device, meta_family, meta_state
from unit_tests.meta_device import run_prompts, run_round

Driver.capability = 90
done = set()

def launch(run, *args, grid, **kwargs):
    compiled = run(*args, grid=grid, warmup=True, **kwargs)
    if compiled.hash not in done:
        done.add(compiled.hash)
        print(compiled.name, compiled.metadata.shared)

family = meta_family()
with meta_device(launch=launch):
    state = meta_state(family)
"""
ONE = """
    run_round(kinds_of_rounds(family, 1)[-2 * len(EXTRAS)], state)
"""
ALL = """
    run_prompts(state)
    for rows in (1, 4):
        for shape in kinds_of_rounds(family, rows):
            run_round(shape, state)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [ONE, ALL], ids=["one round", "all"])
def test_kernels_compile_for_an_h100_with_the_arguments_that_rounds_give_them(tmp_path, rounds):
    shared_memory = compiled_for_gpus(COMPILE + rounds, str(tmp_path))
    assert len(shared_memory) >= (50 if rounds == ALL else 10)
    assert max(shared_memory) <= 99 * 1024, "more than the smallest GPU since Ampere has"
