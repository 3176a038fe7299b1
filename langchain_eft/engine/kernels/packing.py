"""The blocks of GGUF files brought into the order that products read. No digit changes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from langchain_eft.engine.kernels.formats import GROUP
from langchain_eft.engine.kernels.program import Extent, Program, Work
from langchain_eft.engine.kernels.store import kernel


class Arguments(Work):
    """What the kernels read.

    Attributes:
        x: Address of the first row of a file.
        x_step: Bytes from row to row.
        x_block: Bytes of a block.
        zeros: Address of a block of zeros, which fills up the last group.
        outputs: Number of rows.
        blocks: Blocks of a row.
        y: Address of the first group.
        y_step: Bytes from group to group.
        y_block: Bytes of a group's super-block.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("x", "x_step", "x_block", "zeros", "outputs", "blocks", "y", "y_step", "y_block")
    )


def pack(name: str, rows: Tensor, block: int, data: Tensor, super_block: int) -> None:
    """Write the blocks of a weight to their places.

    Args:
        name: Kind of the blocks in lower case, as `q4_k`.
        rows: [out, bytes of a row] uint8, as they are in a file.
        block: Bytes of a block of the file.
        data: [groups, bytes of a group] uint8, where they go.
        super_block: Bytes of a group's super-block.
    """
    rows, zeros, blocks = rows.contiguous(), torch.zeros(block, dtype=torch.uint8), rows.shape[1] // block
    arguments = Arguments(
        x=rows.data_ptr(), x_step=rows.shape[1], x_block=block, zeros=zeros.data_ptr(), outputs=len(rows),
        blocks=blocks, y=data.data_ptr(), y_step=data.shape[1], y_block=super_block,
    )  # fmt: skip
    program = Program()
    cost = 2 * GROUP * rows.shape[1]
    program.add(kernel(f"{__package__}.packing_kernels", name), arguments, Extent(len(data)), cost, rows)
    program.run()
