"""The kernel that lays out a round's tokens against torch: on a GPU, or in Triton's interpreter on a CPU."""

from unit_tests.interpreter import DEVICE, compiled_for_gpus  # isort: skip

import pytest
import torch

from langchain_eft.engine.rounds.layout import lay_out
from langchain_eft.engine.rounds.layout_triton import lay_out_kernel

pytestmark = pytest.mark.cuda


def random_rows(slots, rows, entries, *, flags):
    """Arguments as rounds give them: rows without tokens or terms, strided and expanded tensors."""
    tokens = torch.randint(0, 50000, (entries, rows)).t()
    prompt_end = torch.randint(50000, 60000, (slots, rows))
    last, variant = torch.randint(0, 900, (slots, rows)), torch.randint(0, 3, (slots, rows))
    offset = torch.randint(0, 3, (1,)).expand(rows) if flags else torch.randint(0, 3, (rows,))
    start = last + torch.randint(1, 4, (slots, rows))
    count = torch.randint(0, entries + 1, (2 * rows,))[::2]
    used = torch.rand(slots, rows) < 0.7
    count = count > 0 if flags else count
    return [x.to(DEVICE) for x in (tokens, start, prompt_end, last, offset, count, used, variant)]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(("entries", "flags"), [(1, True), (1, False), (5, False), (17, False)])
def test_the_kernel_gives_the_layout_of_torch(slots, entries, flags):
    torch.manual_seed(slots + entries)
    arguments = random_rows(slots, 6, entries, flags=flags)
    for actual, expected in zip(lay_out_kernel(*arguments), lay_out.definition(*arguments), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_padding_has_position_zero_and_no_length():
    tokens = torch.tensor([[7], [8]], device=DEVICE)
    last = torch.tensor([[30, 40]], device=DEVICE)
    no_offset = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    count = torch.tensor([1, 0], device=DEVICE)
    used = torch.tensor([[True, True]], device=DEVICE)
    start, prompt_end = torch.tensor([[31, 11], [5, 5]], device=DEVICE)
    layout = lay_out(tokens, start[None], prompt_end[None], last, no_offset, count, used, last * 0)
    assert layout.ids.tolist() == [5, 8], "the first row has just its prompt"
    assert layout.positions.tolist() == [30, 0]
    assert (layout.queries.tolist(), layout.lengths.tolist()) == ([1, 0], [31, 0])


COMPILE = """
from langchain_eft.engine.rounds import layout_triton as module

compile_only(module._lay_out)
for Driver.capability, entries in ((80, 1), (90, 5)):
    whole, flags = meta(2, 8, dtype=torch.int64), meta(2, 8, dtype=torch.bool)
    rows = meta(8, dtype=torch.int64)
    tokens = meta(8, entries, dtype=torch.int64)
    for count in (rows, rows > 0):
        module.lay_out_kernel(tokens, whole, whole, whole, rows, count, flags, whole)
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    assert len(compiled_for_gpus(COMPILE, str(tmp_path))) == 4
