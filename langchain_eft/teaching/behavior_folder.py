"""The folder of a behavior: adapter, card and README. It appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_eft.engine.recipe.behavior_card import CARD_FILE, BehaviorCard
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.settings import Precision

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class WorkFolder:
    """Where a behavior is made: a folder beside the final one.

    Attributes:
        final: The folder that the behavior gets.
    """

    final: Path

    @property
    def path(self) -> Path:
        """The folder with checkpoints, and with what was asked of a teacher."""
        return self.final.with_name(f"{self.final.name}.part")

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the training."""
        return self.path / "checkpoints"

    @property
    def answers(self) -> Path:
        """What a teacher has answered."""
        return self.path / "answers.jsonl"

    @property
    def _identity(self) -> Path:
        return self.path / "teaching.json"

    def check(self, *, resume: bool) -> None:
        """Refuse folders in which no behavior can be made.

        Args:
            resume: Whether to continue a training.

        Raises:
            TeachingError: The final folder exists, there is a training that has not ended or none to
                continue, or its folder is a symbolic link, which would lead the files elsewhere.
        """
        if "\0" in str(self.final):
            raise TeachingError(f"folder={str(self.final)!r} has a NUL character: name another folder.")
        with writing(self.path):
            begun, linked = os.path.lexists(self.path), self.path.is_symlink()
            continues = self._identity.is_file()
        if os.path.lexists(self.final):
            raise TeachingError(
                f"The folder {str(self.final)!r} exists: remove it, or name another folder with `folder`."
            )
        if linked:
            raise TeachingError(
                f"{str(self.path)!r} is a symbolic link, and the training has its files there: remove it."
            )
        if resume and not continues:
            raise TeachingError(
                f"There is no training to continue in {str(self.path)!r}: leave out `resume`."
            )
        if begun and not resume:
            raise TeachingError(
                f"{str(self.path)!r} holds a training that has not ended: go on with `resume` (--resume), or "
                "remove the folder."
            )

    def begin(self, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or continue in it.

        Args:
            identity: What makes this training different from others.
            resume: Whether to continue.

        Raises:
            TeachingError: There is another training to continue, or the folder cannot be made.
        """
        text = json.dumps(identity, sort_keys=True, indent=1, default=str)
        if resume:
            if self._identity.read_text(encoding="utf-8") != text:
                raise TeachingError(
                    f"{str(self.path)!r} holds a training with other examples, models or settings: use "
                    "the same ones, or remove the folder and begin anew."
                )
            return
        with writing(self.path):
            self.path.mkdir(parents=True)
            self._identity.write_text(text, encoding="utf-8")

    def end(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report an error of the disk as one that says what to do.

    Args:
        folder: What is written.

    Raises:
        TeachingError: Writing failed.
    """
    try:
        yield
    except OSError as error:
        raise TeachingError(
            f"{str(folder)!r} cannot be written ({error}): free some space, or make it writable."
        ) from error


def write_behavior(
    folder: Path, checkpoint: Path, card: BehaviorCard, adapter_base: str, readme: str, precision: Precision
) -> None:
    """Write a behavior's folder beside its place, and rename it.

    Args:
        folder: The new folder, which must not exist.
        checkpoint: The folder of the adapter in PEFT's format.
        card: What the behavior says of itself.
        adapter_base: What the adapter's configuration names as its model.
        readme: The model card.
        precision: How the adapter's weights are stored.

    Raises:
        TeachingError: The disk is full, or the folder cannot be written.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
            fresh = Path(scratch) / "behavior"
            fresh.mkdir()
            if precision == "bfloat16":
                _copy_rounded(checkpoint / ADAPTER_FILE, fresh / ADAPTER_FILE)
            else:
                shutil.copyfile(checkpoint / ADAPTER_FILE, fresh / ADAPTER_FILE)
            config = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = adapter_base
            (fresh / ADAPTER_CONFIG).write_text(
                json.dumps(config, indent=2, sort_keys=True), encoding="utf-8"
            )
            (fresh / CARD_FILE).write_text(card.model_dump_json(indent=2), encoding="utf-8")
            (fresh / "README.md").write_text(readme, encoding="utf-8")
            fresh.rename(folder)


def _copy_rounded(file: Path, copy: Path) -> None:
    """Copy weights as bfloat16, which is half of their size."""
    import torch
    from safetensors.torch import load_file, save

    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
    copy.write_bytes(save(rounded, metadata={"format": "pt"}))
