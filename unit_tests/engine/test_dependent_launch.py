"""Kernels that start before the one before them has ended wait for its results; older GPUs launch as ever."""

from unit_tests.interpreter import compiled_for_gpus  # isort: skip

import ast
import inspect
import textwrap

import pytest
import torch

from langchain_eft.engine.dependent_launch import dependent_launch
from unit_tests.meta_device import kernels

CONSTANTS = {"weight", "vocabulary"}
"""What no kernel writes."""


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", None, {"dependent": False}),
        ("cuda", (8, 9), {"dependent": False}),
        ("cuda", (9, 0), {"dependent": True, "launch_pdl": True}),
        ("cuda", (12, 0), {"dependent": True, "launch_pdl": True}),
    ],
)
def test_gpus_since_hopper_launch_dependent_kernels(monkeypatch, device, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert dependent_launch.__wrapped__(torch.device(device)) == expected


def statements(kernel):
    return ast.parse(textwrap.dedent(inspect.getsource(kernel.fn))).body[0]


def calls(node, name):
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == name
    ]


def test_every_kernel_waits_before_it_reads_what_another_has_written_or_returns():
    launched = [
        statements(kernel) for kernel in kernels() if "dependent" in inspect.signature(kernel.fn).parameters
    ]
    launched = [function for function in launched if function.name != "wait_for_previous"]
    assert len(launched) == 16
    for function in launched:
        waits = [i for i, each in enumerate(function.body) if calls(each, "wait_for_previous")]
        assert len(waits) == 1, function.name
        assert isinstance(function.body[waits[0]], ast.Expr), "the wait is under no condition"
        for before in function.body[: waits[0]]:
            assert not [each for each in ast.walk(before) if isinstance(each, ast.Return)]
            assert not calls(before, "store")
            for load in calls(before, "load"):
                assert ast.unparse(load.args[0]).split()[0] in CONSTANTS


COMPILE = """
from langchain_eft.engine.models import triton as module

def show(kernel):
    run = kernel.run
    def dry(*args, **kwargs):
        ptx = run(*args, **{**kwargs, "warmup": True}).asm["ptx"]
        first = ptx.find("griddepcontrol.wait")
        print(ptx.count("griddepcontrol.wait"), ptx.count("griddepcontrol.launch_dependents"))
        print("loads before", ptx[:max(first, 0)].count("ld.global"))
    kernel.run = dry

show(module._norm)
new = {"dependent": True, "launch_pdl": True}
for Driver.capability, keywords in ((80, {"dependent": False}), (90, new)):
    module.dependent_launch = lambda device: keywords
    module.rms_norm_kernel(meta(4, 64), meta(64), 1e-5)
"""


@pytest.mark.slow
def test_the_wait_is_compiled_where_it_exists_and_weights_are_read_before_it(tmp_path):
    old_launches, old_loads, new_launches, new_loads = compiled_for_gpus(COMPILE, str(tmp_path))
    assert (old_launches, old_loads) == (0, 0)
    assert new_launches == 1
    assert new_loads > 0
