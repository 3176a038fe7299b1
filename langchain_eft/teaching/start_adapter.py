"""The adapter that a training begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from langchain_eft.engine.models.lora import read_adapter_config
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behavior_card import read_card
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.settings import Settings


def find_start(settings: Settings, reference_hash: str, progress: Progress) -> tuple[Path, Settings]:
    """Find and fetch the adapter of `settings.start`.

    Args:
        settings: Settings with a `start`.
        reference_hash: `weights_hash` of the reference that is trained.
        progress: Receives what is fetched.

    Returns:
        The adapter's local folder, and the settings with its rank.

    Raises:
        CheckpointNotFoundError: There is no adapter, or its files are damaged.
        RecipeError: The adapter is not a plain LoRA.
        TeachingError: The adapter has another rank than the settings, belongs to another reference, or does
            not act on all tokens.
    """
    folder = Path(fetch_checkpoint(str(settings.start), progress))
    config = read_adapter_config(folder)
    rank = int(config["r"])
    if config["alora_invocation_tokens"]:
        raise TeachingError(
            f"start={settings.start!r} is an activated LoRA (alora_invocation_tokens), and adapters are "
            "taught to act on all tokens: begin with a plain LoRA, or leave out `start`."
        )
    if settings.rank not in (None, rank):
        raise TeachingError(
            f"rank={settings.rank}, but the adapter start={settings.start!r} has rank {rank}: leave out "
            "one of the two."
        )
    card = read_card(folder)
    if card is not None and card.reference_hash != reference_hash:
        raise TeachingError(
            f"start={settings.start!r} was trained on the reference {card.reference!r}, which has other "
            "weights: begin with an adapter of this reference, or leave out `start`."
        )
    return folder, replace(settings, rank=rank)
