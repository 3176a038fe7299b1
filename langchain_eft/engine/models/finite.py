"""Weights that are not numbers: a damaged file, or training that diverged."""

from __future__ import annotations

from torch import Tensor, nn

from langchain_eft.engine.errors import CheckpointNotFoundError


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite. This reads each value once, and allocates nothing."""
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def require_finite(name: str, module: nn.Module) -> None:
    """Refuse a model with a weight that is NaN or infinite. Weights in packed formats are not looked at.

    Raises:
        CheckpointNotFoundError: With the name of the weight.
    """
    for key, weight in module.named_parameters():
        plain = type(weight) is nn.Parameter and weight.is_floating_point() and weight.itemsize > 1
        if plain and not weight.is_meta and not all_finite(weight):
            raise CheckpointNotFoundError(
                f"The weight {key!r} of {name!r} holds NaN or infinite values: fetch the model again, or use "
                "another checkpoint."
            )
