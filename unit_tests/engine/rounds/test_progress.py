"""Where rows stand before and after a round: by torch, and by the kernels that must equal it."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

import pytest
import torch

from langchain_eft.engine.rounds.progress import RowProgress, accept, begin
from langchain_eft.engine.rounds.progress_triton import accept_kernel, begin_kernel
from langchain_eft.engine.rounds.staging import PackedTensors

pytestmark = pytest.mark.cuda
INT = torch.int64
WAYS = pytest.mark.parametrize("way", ["torch", "kernel"])


def inputs(**columns):
    packed = PackedTensors(
        {name: ((len(values),), INT) for name, values in columns.items()}, torch.device(DEVICE)
    )
    for name, values in columns.items():
        packed[name].copy_(torch.tensor(values))
    return packed


def outputs(rows, drafted):
    shapes = {
        "undrawn": ((rows,), torch.bool),
        "draft_tokens": ((rows, drafted), INT),
        "count": ((rows,), INT),
        "tokens": ((rows, drafted + 1), INT),
        "accepted": ((rows,), INT),
    }
    return PackedTensors(shapes, torch.device(DEVICE))


def on_device(*values):
    return [torch.as_tensor(value).to(DEVICE) for value in values]


@WAYS
def test_rows_continue_where_the_last_round_left_them_or_where_the_host_says(way):
    host = inputs(
        source=[0, 3, 1],
        last=[40, 41, 42],
        num_output_tokens=[5, 6, 7],
        limit=[9, 50, 13],
        prompt=[10, 20, 30],
        count=[4, 4, 4],
    )
    last, length = on_device([70, 71, 72, 73], [11, 12, 13, 14])
    progress = {"torch": begin.definition, "kernel": begin_kernel}[way](host, last, length)
    assert progress.last.tolist() == [40, 72, 70]
    assert progress.num_output_tokens.tolist() == [5, 13, 11]
    assert progress.num_tokens.tolist() == [15, 33, 41]
    assert progress.count.tolist() == [3, 4, 1], "a draft ends one token before the answer"
    assert progress.alive.tolist() == [True, True, True]


@WAYS
def test_a_row_at_its_limit_drafts_nothing(way):
    host = inputs(
        source=[0, 0], last=[1, 1], num_output_tokens=[9, 10], limit=[9, 9], prompt=[2, 2], count=[3, 3]
    )
    progress = {"torch": begin.definition, "kernel": begin_kernel}[way](host, *on_device([0, 0], [0, 0]))
    assert progress.count.tolist() == [0, 0]
    assert progress.alive.tolist() == [False, False]


@WAYS
def test_drafts_are_accepted_up_to_the_first_that_differs(way):
    draft_tokens = [[1, 2, 3]] * 6
    tokens = [[1, 2, 3, 9], [1, 2, 8, 3], [7, 2, 3, 4], [1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 3, 9]]
    finite = torch.ones(6, 4, dtype=torch.bool)
    finite[4, 2] = False  # nothing can follow the second draft token
    finite[5, 0] = False  # nothing can be drawn
    progress = RowProgress(
        last=torch.full((6,), 50).to(DEVICE),
        num_output_tokens=torch.arange(6).to(DEVICE),
        num_tokens=torch.arange(6).to(DEVICE),
        count=torch.tensor([3, 3, 3, 1, 3, 3]).to(DEVICE),
        alive=torch.tensor([True, True, False, True, True, True]).to(DEVICE),
    )
    out, (last, length) = outputs(6, 3), on_device([0] * 8, [0] * 8)
    {"torch": accept.definition, "kernel": accept_kernel}[way](
        *on_device(draft_tokens, tokens, finite), progress, out, last, length
    )
    assert out["accepted"].tolist() == [3, 2, 0, 1, 1, 3]
    assert out["undrawn"].tolist() == [False] * 5 + [True]
    assert out["count"].tolist() == [3, 3, 3, 1, 3, 3]
    assert out["draft_tokens"].tolist() == draft_tokens
    assert out["tokens"].tolist() == tokens
    assert last.tolist() == [9, 8, 50, 2, 2, 9, 0, 0]
    assert length.tolist() == [4, 4, 2, 5, 6, 9, 0, 0]


@pytest.mark.parametrize(("rows", "drafted"), [(1, 0), (3, 1), (5, 16)])
def test_kernels_equal_torch(rows, drafted):
    torch.manual_seed(rows)
    host = inputs(
        **{
            name: torch.randint(0, most, (rows,)).tolist()
            for name, most in {
                "source": rows + 1, "last": 99, "num_output_tokens": 40, "limit": 60, "prompt": 30,
                "count": drafted + 1,
            }.items()
        }
    )  # fmt: skip
    states = on_device(*torch.randint(0, 50, (2, rows + 2)))
    ways = []
    draft_tokens, tokens = torch.randint(0, 2, (rows, drafted)), torch.randint(0, 2, (rows, drafted + 1))
    finite = torch.rand(rows, drafted + 1) < 0.8
    for starts, accepts in ((begin.definition, accept.definition), (begin_kernel, accept_kernel)):
        last, length = (x.clone() for x in states)
        progress, out = starts(host, last, length), outputs(rows, drafted)
        accepts(*on_device(draft_tokens, tokens, finite), progress, out, last, length)
        ways.append([*vars(progress).values(), out.memory, last, length])
    for expected, actual in zip(*ways, strict=True):
        assert torch.equal(expected, actual)


COMPILE = """
from langchain_eft.engine.rounds import progress_triton as module

compile_only(module._begin)
compile_only(module._accept)
for Driver.capability in (80, 90):
    whole = meta(4, dtype=torch.int64)
    names = ("source", "last", "num_output_tokens", "limit", "prompt", "count")
    progress = module.begin_kernel({name: whole for name in names}, whole, whole)
    drafts, tokens = meta(4, 3, dtype=torch.int64), meta(4, 4, dtype=torch.int64)
    out = {"undrawn": meta(4, dtype=torch.bool), "draft_tokens": drafts, "count": whole, "tokens": tokens,
           "accepted": whole}
    module.accept_kernel(drafts, tokens, meta(4, 4, dtype=torch.bool), progress, out, whole, whole)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    assert len(compiled_for_gpus(COMPILE, str(tmp_path))) == 4
