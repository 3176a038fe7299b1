"""Keep a few layers of the base model and distil it into them.

python -m training.smol.distill WORK FAMILY --seconds 175 --rows 96

Reads WORK/base and WORK/conversations.safetensors; writes FAMILY/reference.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from .convert_base import BASE_FOLDER
from .divergence import chunk_loss, loss_and_gradient
from .generate import CONVERSATIONS_FILE
from .llama import Llama, rope_table
from .runtime import decoding_precision, find_device
from .schedule import learning_rates
from .weights import load_base_state, load_llama, save_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REFERENCE_FOLDER = "reference"
KEPT_LAYERS = (0, 1, 2, 7, 13, 19, 25, 29)
PEAK_LEARNING_RATE = 8e-4
WARMUP_STEPS = 100
# The first step compiles the model.
FREE_STEPS = 1


class Distiller:
    """Trains a student on the teacher's distributions.

    Args:
        teacher: The teacher, frozen, in the precision to run it in.
        student: The student, in single precision, on the same device.
        tokens: The number of tokens of a row.
    """

    def __init__(self, teacher: Llama, student: Llama, tokens: int) -> None:
        self.device = teacher.embed_tokens.weight.device
        self.precision = teacher.embed_tokens.weight.dtype
        self.head = teacher.embed_tokens.weight
        self.trained = [p for p in student.parameters() if p.requires_grad]
        self.on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.trained, betas=(0.9, 0.95), weight_decay=0.01, fused=self.on_gpu
        )
        cos, sin = rope_table(self.device, torch.float32)
        self.student_rope = cos[:tokens], sin[:tokens]
        self.teacher_rope = cos[:tokens].to(self.precision), sin[:tokens].to(self.precision)
        self._teacher = torch.compile(teacher, disable=not self.on_gpu)
        self._student = torch.compile(student, disable=not self.on_gpu)
        self._chunk_loss = torch.compile(chunk_loss, disable=not self.on_gpu)

    def step(self, ids: Tensor, rate: float) -> Tensor:
        """Take one step.

        Args:
            ids: Conversations, [rows, tokens].
            rate: The learning rate.

        Returns:
            The divergence per token before the step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            wanted = self._teacher(ids, *self.teacher_rope).flatten(0, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            hidden = self._student(ids, *self.student_rope)
        hidden = hidden.flatten(0, 1).to(self.precision)
        loss, gradient = loss_and_gradient(wanted, hidden.detach(), self.head, self._chunk_loss)
        hidden.backward(gradient)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


def shuffled_batches(conversations: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield batches [rows, tokens] of the conversations, epoch after epoch, without end."""
    if rows > len(conversations):
        raise ValueError(f"{rows} rows per step, but only {len(conversations)} conversations")
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(conversations), generator=generator)
        for start in range(0, len(conversations) - rows + 1, rows):
            yield conversations[order[start : start + rows]]


def distill(arguments: argparse.Namespace) -> None:
    """Train the reference model and write it."""
    device = find_device()
    state = load_base_state(arguments.work / BASE_FOLDER)
    conversations = load_file(arguments.work / CONVERSATIONS_FILE)["ids"].long()
    teacher = load_llama(state).to(device, decoding_precision(device))
    student = load_llama(state, KEPT_LAYERS).to(device)
    teacher.requires_grad_(requires_grad=False)
    student.embed_tokens.requires_grad_(requires_grad=False)
    distiller = Distiller(teacher, student, conversations.shape[1])
    rates = learning_rates(PEAK_LEARNING_RATE, arguments.seconds, WARMUP_STEPS, FREE_STEPS)
    batches = shuffled_batches(conversations[arguments.held_out :], arguments.rows)
    steps = islice(zip(batches, rates, strict=False), arguments.max_steps)
    for step, (ids, rate) in enumerate(steps):
        loss = distiller.step(ids.to(device), rate)
        if step % 50 == 0:
            print(f"step {step}: divergence {loss.item():.4f}, rate {rate:.1e}", flush=True)
    save_reference(student, arguments.family / REFERENCE_FOLDER)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("family", type=Path, help="folder of the trained models")
    parser.add_argument("--seconds", type=float, default=175, help="training time")
    parser.add_argument("--max-steps", type=int, help="stop after so many steps")
    parser.add_argument("--rows", type=int, default=96, help="conversations per step")
    parser.add_argument("--held-out", type=int, default=64, help="conversations not trained on")
    distill(parser.parse_args())


if __name__ == "__main__":
    main()
