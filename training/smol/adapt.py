"""Teach the reference model one behavior per adapter.

python -m training.smol.adapt WORK FAMILY

Reads WORK/base, WORK/conversations.safetensors and FAMILY/reference; writes the PEFT folders
FAMILY/tools, FAMILY/concise, FAMILY/pirate and FAMILY/harmless.
"""

from __future__ import annotations

import argparse
import copy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from .batches import BehaviorBatches
from .convert_base import BASE_FOLDER
from .distill import REFERENCE_FOLDER
from .generate import CONVERSATIONS_FILE
from .llama import Llama, rope_table
from .lora import RANK, add_adapter, save_adapter
from .pairs import question_answer_pairs
from .places import load_places
from .runtime import decoding_precision, find_device
from .schedule import learning_rates
from .weights import load_base_state, load_reference

if TYPE_CHECKING:
    from torch import Tensor

WARMUP_STEPS = 40
# The first steps compile the model, for each shape of its input.
FREE_STEPS = 3


class Behavior(NamedTuple):
    """How one behavior is trained.

    Attributes:
        name: The name of the behavior and of its folder.
        seconds: The training time.
        tokens: The longest conversation.
        learning_rate: The highest learning rate.
    """

    name: str
    seconds: float
    tokens: int
    learning_rate: float


BEHAVIORS = [
    Behavior("tools", 150, 640, 1.5e-3),
    Behavior("concise", 25, 256, 1e-3),
    Behavior("pirate", 25, 256, 1e-3),
    Behavior("harmless", 25, 256, 1e-3),
]


class AdapterTrainer:
    """Trains an adapter on a copy of a model.

    Args:
        model: The model, in the precision to run it in.
        rank: Of the adapter.
    """

    def __init__(self, model: Llama, rank: int = RANK) -> None:
        self.device = model.embed_tokens.weight.device
        self.on_gpu = self.device.type == "cuda"
        torch.manual_seed(1)
        self.model = add_adapter(copy.deepcopy(model), rank).to(self.device)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, betas=(0.9, 0.98), weight_decay=0.0)
        self.cos, self.sin = rope_table(self.device, torch.float32)
        # What the last behavior compiled would count against the limit of recompilations.
        torch.compiler.reset()
        self._hidden = torch.compile(self.model, disable=not self.on_gpu)

    def step(self, ids: Tensor, learned: Tensor, rate: float) -> Tensor:
        """Take one step.

        Args:
            ids: Conversations, [rows, tokens].
            learned: Where a token is to be learned, [rows, tokens].
            rate: The learning rate.

        Returns:
            The cross-entropy per learned token before the step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if not self.on_gpu:  # where every shape would be compiled
            longest = int(ids.any(0).nonzero().max()) + 1
            ids, learned = ids[:, :longest], learned[:, :longest]
        last = ids.shape[1] - 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            hidden = self._hidden(ids[:, :-1], self.cos[:last], self.sin[:last])
        target = learned[:, 1:]
        head = self.model.embed_tokens.weight
        logits = self.model.logits(hidden[target].to(head.dtype))
        loss = F.cross_entropy(logits.float(), ids[:, 1:][target])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def train(
    behavior: Behavior,
    model: Llama,
    batches: DataLoader[tuple[Tensor, Tensor]],
    max_steps: int | None,
    rank: int = RANK,
) -> Llama:
    """Return a copy of a model with an adapter trained on `batches`."""
    trainer = AdapterTrainer(model, rank)
    rates = learning_rates(behavior.learning_rate, behavior.seconds, WARMUP_STEPS, FREE_STEPS)
    steps = islice(zip(batches, rates, strict=False), max_steps)
    for step, ((ids, learned), rate) in enumerate(steps):
        loss = trainer.step(ids.to(trainer.device), learned.to(trainer.device), rate)
        if step % 20 == 0:
            print(f"{behavior.name}, step {step}: loss {loss.item():.4f}", flush=True)
    return trainer.model


def adapt(arguments: argparse.Namespace) -> None:
    """Train and write every adapter."""
    device = find_device()
    state = load_base_state(arguments.work / BASE_FOLDER)
    reference = load_reference(arguments.family / REFERENCE_FOLDER, state)
    reference = reference.to(device, decoding_precision(device))
    tokenizer = AutoTokenizer.from_pretrained(arguments.work / BASE_FOLDER)
    conversations = load_file(arguments.work / CONVERSATIONS_FILE)["ids"]
    pairs = question_answer_pairs(conversations, tokenizer)
    cities = load_places().cities
    for behavior in BEHAVIORS:
        timed = behavior._replace(seconds=behavior.seconds * arguments.scale)
        batches = BehaviorBatches(timed.name, arguments.rows, timed.tokens, tokenizer, pairs, cities)
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=arguments.workers,
            multiprocessing_context="spawn" if arguments.workers else None,
        )
        model = train(timed, reference, loader, arguments.max_steps)
        save_adapter(model, arguments.family / timed.name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("family", type=Path, help="folder of the trained models")
    parser.add_argument("--scale", type=float, default=1, help="factor on the training times")
    parser.add_argument("--max-steps", type=int, help="stop each adapter after so many steps")
    parser.add_argument("--rows", type=int, default=64, help="conversations per step")
    parser.add_argument("--workers", type=int, default=14, help="processes that write batches")
    adapt(parser.parse_args())


if __name__ == "__main__":
    main()
