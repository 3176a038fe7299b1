"""The cards of a recipe's behaviors, and a warning where an adapter meets another model than its own."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import xxhash

from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from langchain_eft.engine.loading.conversion import checksum
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.progress import silent
from langchain_eft.engine.recipe.behavior_card import BehaviorCard, read_card
from langchain_eft.engine.recipe.behaviors import Recipe

logger = logging.getLogger(__name__)


def weights_hash(folder: Path) -> str:
    """A hash of a model's weight files, which are read once. Their names do not count."""
    hashes = "".join(sorted(map(checksum, folder.glob("*.safetensors"))))
    return f"xxh3:{xxhash.xxh3_128_hexdigest(hashes.encode())}"


def behavior_cards(recipe: Recipe) -> dict[str, BehaviorCard]:
    """The card of every behavior whose adapter has one.

    Raises:
        CheckpointNotFoundError: An adapter cannot be found.
        RecipeError: A file is not a card.
    """
    folders = {name: delta.adapter for name, delta in recipe.behaviors.items() if delta.adapter}
    cards = {name: read_card(Path(fetch_checkpoint(folder, silent))) for name, folder in folders.items()}
    return {name: card for name, card in cards.items() if card is not None}


def warn_of_other_references(checkpoints: RecipeCheckpoints) -> None:
    """Warn of adapters whose card names other weights than those of their reference.

    Raises:
        RecipeError: A file is not a card.
    """
    hash_of = cache(weights_hash)  # a reference may be that of many adapters
    for name, pair in checkpoints.pairs.items():
        card = read_card(pair.adapter) if pair.adapter else None
        if card is None or pair.reference.path is None or not pair.reference.path.is_dir():
            continue
        if hash_of(pair.reference.path) != card.reference_hash:
            logger.warning(
                "Behavior %r was trained on the reference %r, and %r has other weights: its adapter may do "
                "something else here. Use the model that it was trained on, or teach it again.",
                name,
                card.reference,
                pair.reference.name,
            )
