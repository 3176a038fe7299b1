"""Where rows stand before and after a round: by torch, and by the kernels that must equal it."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

import pytest
import torch

from langchain_eft.engine.rounds.progress import RowProgress, accept, begin
from langchain_eft.engine.rounds.staging import PackedTensors

pytestmark = pytest.mark.cuda
INT = torch.int64
WAYS = pytest.mark.parametrize("way", ["torch", "kernel"])


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
def test_rows_continue_where_the_last_round_has_left_them(way):
    table = [[0, 0], [70, 11], [71, 12], [72, 13]]
    rows, count, limit, prompt = [2, 1, 0], [4, 4, 4], [20, 13, 0], [10, 20, 0]
    start = {"torch": begin.definition, "kernel": begin.kernel}[way](
        *on_device(rows, count, limit, prompt, table)
    )
    assert start.last.tolist() == [71, 70, 0]
    assert start.num_output_tokens.tolist() == [12, 11, 0]
    assert start.num_tokens.tolist() == [22, 31, 0]
    assert start.count.tolist() == [4, 1, 0], "a draft ends one token before the answer"
    assert start.alive.tolist() == [True, True, False]


@WAYS
def test_a_row_at_its_limit_drafts_nothing(way):
    table = [[1, 9], [1, 10]]
    start = {"torch": begin.definition, "kernel": begin.kernel}[way](
        *on_device([0, 1], [3, 3], [9, 9], [2, 2], table)
    )
    assert start.count.tolist() == [0, 0]
    assert start.alive.tolist() == [False, False]


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
    out = outputs(6, 3)
    rows, table = on_device([5, 4, 3, 2, 1, 0], [[0, 0]] * 8)
    {"torch": accept.definition, "kernel": accept.kernel}[way](
        *on_device(draft_tokens, tokens, finite), progress, out, rows, table
    )
    assert out["accepted"].tolist() == [3, 2, 0, 1, 1, 3]
    assert out["undrawn"].tolist() == [False] * 5 + [True]
    assert out["count"].tolist() == [3, 3, 3, 1, 3, 3]
    assert out["draft_tokens"].tolist() == draft_tokens
    assert out["tokens"].tolist() == tokens
    moved_on = [[9, 4], [8, 4], [50, 2], [2, 5], [2, 6], [9, 9]]
    assert table.tolist() == [*reversed(moved_on), [0, 0], [0, 0]]


@pytest.mark.parametrize(("rows", "drafted"), [(1, 0), (3, 1), (5, 16)])
def test_kernels_equal_torch(rows, drafted):
    torch.manual_seed(rows)
    places = torch.randperm(rows + 2)[:rows]
    numbers = [torch.randint(0, most, (rows,)) for most in (drafted + 1, 60, 30)]
    table = torch.randint(0, 50, (rows + 2, 2))
    draft_tokens, tokens = torch.randint(0, 2, (rows, drafted)), torch.randint(0, 2, (rows, drafted + 1))
    finite, ways = torch.rand(rows, drafted + 1) < 0.8, []
    for way in ("definition", "kernel"):
        (places_, *given), progress = on_device(places, *numbers), on_device(table.clone())[0]
        start, out = getattr(begin, way)(places_, *given, progress), outputs(rows, drafted)
        drawn = on_device(draft_tokens, tokens, finite)
        getattr(accept, way)(*drawn, start, out, places_, progress)
        ways.append([*vars(start).values(), out.memory, progress])
    for expected, actual in zip(*ways, strict=True):
        assert torch.equal(expected, actual)


COMPILE = """
from langchain_eft.engine.rounds import progress_triton as module

compile_only(module._begin)
compile_only(module._accept)
for Driver.capability in (80, 90):
    whole = meta(4, dtype=torch.int64)
    table = meta(4, 2, dtype=torch.int64)
    start = module.begin_kernel(whole, whole, whole, whole, table)
    drafts, tokens = meta(4, 3, dtype=torch.int64), meta(4, 4, dtype=torch.int64)
    out = {"undrawn": meta(4, dtype=torch.bool), "draft_tokens": drafts, "count": whole, "tokens": tokens,
           "accepted": whole}
    module.accept_kernel(drafts, tokens, meta(4, 4, dtype=torch.bool), start, out, whole, table)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    assert len(compiled_for_gpus(COMPILE, str(tmp_path))) == 4
