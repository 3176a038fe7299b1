"""The distillation loss: the divergence of the student from the teacher over the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    ChunkLoss = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]

CHUNK = 16384


def chunk_loss(teacher: Tensor, student: Tensor, head: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Return the loss of some tokens and its gradient, written out by hand.

    Args:
        teacher: The teacher's hidden states, [chunk, hidden].
        student: The student's hidden states, [chunk, hidden].
        head: The output head that both share, [vocabulary, hidden].
        tokens: The number of tokens that the whole loss is averaged over.

    Returns:
        KL(teacher || student) summed over the chunk, and the gradient of the averaged loss with
        respect to `student`, [chunk, hidden].
    """
    teacher_log = F.log_softmax(F.linear(teacher, head).float(), -1)
    student_log = F.log_softmax(F.linear(student, head).float(), -1)
    wanted, given = teacher_log.exp(), student_log.exp()
    loss = (wanted * (teacher_log - student_log)).sum()
    return loss, F.linear(((given - wanted) / tokens).to(head.dtype), head.t())


@torch.no_grad()
def loss_and_gradient(
    teacher: Tensor, student: Tensor, head: Tensor, chunk_loss: ChunkLoss
) -> tuple[Tensor, Tensor]:
    """Return the mean loss and its gradient with respect to the student's hidden states.

    The logits of a batch would not fit in memory, so they are made in chunks and not kept.

    Args:
        teacher: The teacher's hidden states, [tokens, hidden].
        student: The student's hidden states, [tokens, hidden].
        head: The output head that both share, [vocabulary, hidden].
        chunk_loss: The function of that name, compiled or not.

    Returns:
        KL(teacher || student) per token, and its gradient, [tokens, hidden].
    """
    tokens = len(student)
    gradient = torch.empty_like(student)
    total = student.new_zeros((), dtype=torch.float32)
    for start in range(0, tokens, CHUNK):
        chunk = slice(start, start + CHUNK)
        loss, gradient[chunk] = chunk_loss(teacher[chunk], student[chunk], head, tokens)
        total += loss
    return total / tokens, gradient
