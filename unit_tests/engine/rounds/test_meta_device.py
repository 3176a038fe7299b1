"""Rounds on a device without numbers: what a GPU would refuse is seen without one."""

from unit_tests.interpreter import compiled_for_gpus  # isort: skip

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from langchain_eft.engine.attention import triton as attention_kernels
from unit_tests.helpers import full
from unit_tests.meta_device import (
    EXTRAS,
    META,
    OneDevice,
    count_launches,
    kinds_of_rounds,
    meta_device,
    meta_family,
    meta_shared,
    run_prompts,
    run_round,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [(1, (2,)), (4, (0, 4)), *full((1, (0, 4, 6)), (4, (2, 6)))], ids=str)
def test_no_kind_of_round_mixes_devices_or_asks_for_a_value(kind):
    rows, lengths = kind
    family = meta_family()
    with meta_device():
        shared = meta_shared(family)
        run_prompts(shared)
        shapes = [shape for shape in kinds_of_rounds(family, rows) if shape.num_draft_tokens in lengths]
        assert len(shapes) >= 2 * len(EXTRAS) * len(lengths)
        for shape in shapes:
            run_round(shape, shared)


@pytest.mark.parametrize(
    ("filters", "of_a_draft_token", "of_verifying"),
    [
        ({"sampled": True, "top_p": False}, 8, 58),
        ({"sampled": True, "top_p": True}, 16, 74),
        ({"sampled": False, "top_p": False}, 6, 52),
    ],
    ids=["sampled", "top-p", "greedy"],
)
def test_a_round_has_few_launches_besides_those_of_the_layers(filters, of_a_draft_token, of_verifying):
    """The table of docs/engine.md. A launch takes microseconds, as much as a small layer."""
    shape = next(s for s in kinds_of_rounds(meta_family(), 4) if s.num_draft_tokens == 4)
    shape = replace(shape, conservative=False, filters=replace(shape.filters, **filters))
    shorter = replace(shape, num_draft_tokens=2)
    (four, verifying), (two, _) = count_launches(shape), count_launches(shorter)
    assert (four - two) / 2 <= of_a_draft_token
    assert two - (four - two) <= 23
    assert verifying <= of_verifying


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
        run_prompts(meta_shared(family))
    assert {each for each in launched if each[0] in attention} == {(name, META) for name in attention}


def test_a_host_tensor_and_a_question_to_the_device_are_seen():
    number = torch.zeros(3, dtype=torch.int64, device=META)
    with OneDevice(), pytest.raises(AssertionError, match="mixes devices"):
        number[torch.tensor([0, 1])]
    with OneDevice(), pytest.raises(AssertionError, match="asks the device"):
        number.nonzero()


COMPILE = """
from unit_tests.meta_device import EXTRAS, kinds_of_rounds, meta_device, meta_family, meta_shared
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
    shared = meta_shared(family)
    run_prompts(shared)
    for rows in (1, 4):
        for shape in kinds_of_rounds(family, rows):
            if shape.num_draft_tokens in LENGTHS and shape.filters.top_p in TOP_P:
                run_round(shape, shared)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "some",
    [
        pytest.param("LENGTHS, TOP_P = (0, 4), (True,)", id="few"),
        pytest.param("LENGTHS, TOP_P = (0, 2, 4, 6), (True, False)", id="all", marks=pytest.mark.full),
    ],
)
def test_kernels_compile_for_an_h100_with_the_arguments_that_rounds_give_them(tmp_path, some):
    shared_memory = compiled_for_gpus(some + COMPILE, str(tmp_path))
    assert len(shared_memory) >= 25
    assert max(shared_memory) <= 99 * 1024, "more than the smallest GPU since Ampere has"


VARIANTS = """
import random
from dataclasses import replace
from triton.runtime.jit import JITFunction
from langchain_eft.engine.rounds import warm_up
from langchain_eft.engine.rounds.shape import common_shapes
from unit_tests.meta_device import EXTRAS, kinds_of_rounds, meta_device, meta_family, meta_shared
from unit_tests.meta_device import run_prompts, run_round

Driver.capability = 90
found, phase = {}, "opening"

def instead_of_compiling(self, key, *rest):
    found.setdefault((self.fn.__name__, key), phase)

JITFunction._do_compile = instead_of_compiling

def launch(run, *args, grid, **kwargs):
    run(*args, grid=grid, warmup=True, **kwargs)

family = meta_family()
with meta_device(launch=launch):
    shared = meta_shared(family)
    warm_up.run_prompts(shared)
    for shape in warm_up.shapes(family, 16):
        run_round(shape, shared)
    phase = "serving"
    for rows in (1, 2, 3, 4, 8, 16):
        shape = random.Random(rows).choice(common_shapes(family, rows))
        for extra in EXTRAS:
            length = random.Random(str(extra)).choice((1, 3, 5, 6, 8, 12, 16))
            run_round(replace(shape, num_draft_tokens=length, drafting=True, **extra), shared)
    for lengths in ((1,), (2, 3), (17, 18), (18,), (100,), (256,), (1, 2, 3, 4, 5), (18, 40, 60)):
        run_prompts(shared, lengths)
for (name, _), phase in found.items():
    print(name, phase, int(phase == "serving"))
"""


@pytest.mark.slow
def test_no_kernel_is_compiled_while_an_engine_serves(tmp_path):
    """Each line is a variant of a kernel; the number says whether requests had to wait for it."""
    waited_for = compiled_for_gpus(VARIANTS, str(tmp_path))
    assert 20 < len(waited_for) < 60
    assert sum(waited_for) == 0
