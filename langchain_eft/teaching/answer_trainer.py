"""SFT on a CPU, with logits of the answers' tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from trl import SFTTrainer

from langchain_eft.teaching.tokens import IGNORED


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer` that computes no logits of prompts.

    On a GPU, trl's own loss does so too. On a CPU it computes them at every position, which
    takes most of a step if the model is small and its vocabulary is large.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  (the trainer's signature)
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean cross-entropy of the learned tokens, in nats.

        Args:
            model: The model with its adapter.
            inputs: `input_ids`, `attention_mask` and `labels`, each [rows, tokens].
            return_outputs: Whether to return the model's outputs too.
            num_items_in_batch: What the sum is divided by; None counts the learned tokens of these rows.
        """
        labels = inputs["labels"][:, 1:]
        learned = labels != IGNORED
        known = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with _only_at(head, learned):
            outputs = model(**known, use_cache=False)  # its logits are [learned tokens, vocabulary]
        total = F.cross_entropy(outputs.logits.float(), labels[learned], reduction="sum")
        loss = total / (learned.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


@contextmanager
def _only_at(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let the output head see the hidden states of some positions only.

    What a model does to its logits, such as a cap, stays its own business.

    Args:
        head: The output head, which reads hidden states [rows, tokens, width].
        positions: Which of them it gets, [rows, tokens - 1] bool.
    """

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        return args[0][:, :-1][positions]

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
