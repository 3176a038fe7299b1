"""Programs: steps run in their order, on as many rows as their extents say at that time."""

import torch

from langchain_eft.engine.kernels.layer import add_sum, add_take
from langchain_eft.engine.kernels.program import Extent, Program


def test_steps_run_in_their_order_on_the_rows_of_the_time():
    program, all_rows, some_rows = Program(), Extent(), Extent()
    x, out, index = torch.arange(12.0).view(4, 3), torch.zeros(4, 3), torch.tensor([2, 3, 0, 1])
    add_take(program, x, index, out, all_rows)
    add_sum(program, torch.full((3,), 100.0), out, some_rows)
    for count, changed in ((4, 1), (2, 0), (0, 3)):
        out.zero_()
        all_rows.rows, some_rows.rows = count, changed
        program.run()
        expected = torch.zeros(4, 3)
        expected[:count] = x[index[:count]]
        expected[:changed] += 100
        assert torch.equal(out, expected)


def test_a_program_keeps_what_its_steps_read():
    program, out = Program(), torch.zeros(1000, 64)
    add_sum(program, torch.ones(1000, 64), out, Extent(1000))
    others = [torch.full((1000, 64), torch.nan) for _ in range(10)]  # where freed memory would be taken
    program.run()
    del others
    assert torch.equal(out, torch.ones(1000, 64))


def test_nothing_to_do():
    Program().run()
