"""A folder that stock vLLM serves: the base's files, those of the small models, and the section `eft`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from safetensors import SafetensorError

from langchain_eft.engine.errors import EngineError, InsufficientDiskError
from langchain_eft.engine.loading.conversion import MANIFEST
from langchain_eft.engine.loading.hub import is_model_file
from langchain_eft.engine.loading.tokenizers import RecipeTokenizers
from langchain_eft.engine.progress import Progress
from langchain_eft.vllm.export.draft import DraftModel
from langchain_eft.vllm.export.exported_models import ExportedModels, config_json
from langchain_eft.vllm.section import ARCHITECTURE, SECTION, EFTSection

_SMALL_MODELS = "eft"
"""Subfolder of an exported folder with a folder for each small model."""

_DRAFT = "draft_model"
"""Name of a draft model that is none of the small models as it is. Their names have no underscore."""

_REWRITTEN = ("config.json", "generation_config.json", "chat_template.jinja", MANIFEST)
"""Files of the base that are not linked: the exported folder has its own, or none."""


class ExportError(EngineError):
    """A folder for vLLM cannot be written."""


@dataclass(frozen=True)
class WrittenFolder:
    """What was written.

    Attributes:
        linked: Size of the files that are hard links, in bytes.
        copied: Size of the weights that take space of their own, in bytes.
    """

    linked: int
    copied: int


def refuse_used(folder: Path) -> None:
    """Refuse a folder that cannot be made.

    Raises:
        ExportError: It is not empty, or its parent does not exist.
    """
    if not folder.parent.is_dir():
        raise ExportError(f"{str(folder.parent)!r} is not a folder: create it, or export elsewhere.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExportError(f"{str(folder)!r} is there already: remove it, or give the name of a new folder.")


def subfolder(name: str) -> str:
    """Where a small model of an exported folder is."""
    return f"{_SMALL_MODELS}/{name}"


def draft_subfolder(draft: DraftModel) -> str:
    """Where the draft model of an exported folder is."""
    return subfolder(draft.name if draft.is_whole else _DRAFT)


def write_folder(
    folder: Path,
    models: ExportedModels,
    tokenizers: RecipeTokenizers,
    section: EFTSection,
    draft: DraftModel | None,
    progress: Progress,
) -> WrittenFolder:
    """Write a folder that vLLM serves. It appears by one rename, whole or not at all.

    Args:
        folder: A new or empty folder.
        models: The models of the recipe.
        tokenizers: Their tokenizers.
        section: What the plugin is told.
        draft: The draft model, or None.
        progress: Receives a few words about each step.

    Raises:
        ExportError: The folder cannot be written.
        InsufficientDiskError: The files do not fit on the disk.
    """
    draft = None if draft is None or draft.is_whole else draft
    further = 0 if draft is None else draft.nbytes
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fresh = Path(scratch) / "model"
            fresh.mkdir()
            written = _place(_files(models, fresh), further, progress)
            _write_settings(fresh, models, tokenizers, section)
            if draft is not None:
                progress("Writing the draft model")
                draft.write(fresh / draft_subfolder(draft))
            fresh.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"{str(folder)!r} cannot be written ({error}): give a folder that you may write, on a disk with "
            "free space."
        ) from error
    return written


def _files(models: ExportedModels, fresh: Path) -> Iterator[tuple[Path, Path]]:
    """Every file to link, and where to."""
    for file in _model_files(models.base.folder):
        if file.name not in _REWRITTEN:
            yield file, fresh / file.name
    for name, model in models.small.items():
        for file in _model_files(model.folder):
            if file.name != MANIFEST:
                yield file, fresh / subfolder(name) / file.name


def _model_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and is_model_file(file.name))


def _place(files: Iterable[tuple[Path, Path]], further: int, progress: Progress) -> WrittenFolder:
    """Link files, and copy those that cannot be linked.

    Args:
        files: Each file and its new path.
        further: Bytes that will be written beside them.
        progress: Receives the name and size of each file that is copied.

    Raises:
        InsufficientDiskError: The copies do not fit on the disk.
    """
    linked, unlinked = 0, []
    for source, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        if _link(source, target):
            linked += source.stat().st_size
        else:
            unlinked.append((source, target))
    copied = sum(source.stat().st_size for source, _ in unlinked)
    _require_disk(copied + further, target.parent)
    for source, target in unlinked:
        progress(f"Copying {source.parent.name}/{source.name} ({decimal(source.stat().st_size)})")
        shutil.copyfile(source, target)
    return WrittenFolder(linked, copied + further)


def _link(source: Path, target: Path) -> bool:
    """Make a hard link; False where there can be none, such as to a file on another disk."""
    try:
        os.link(source.resolve(), target)  # the hub's cache keeps symbolic links
    except OSError:
        return False
    return True


def _require_disk(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InsufficientDiskError(
            f"The export needs {decimal(needed)} on disk, but only {decimal(free)} are free: free some "
            "space, or export to the disk that holds the models, where files are linked and not copied."
        )


def _write_settings(
    fresh: Path, models: ExportedModels, tokenizers: RecipeTokenizers, section: EFTSection
) -> None:
    """Write what differs from the base's own files: the architecture, the template, what ends an answer."""
    base = models.base.folder
    config = config_json(base) | {"architectures": [ARCHITECTURE], SECTION: section.model_dump(mode="json")}
    _write_json(fresh / "config.json", config)
    generation = base / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    _write_json(fresh / "generation_config.json", settings | {"eos_token_id": list(section.end_ids)})
    if template := tokenizers.base.chat_template:
        (fresh / "chat_template.jinja").write_text(template, encoding="utf-8")
    end = _end_of_answers(tokenizers, section)
    if end is not None and end != tokenizers.base.eos_token:
        file = fresh / "tokenizer_config.json"
        tokenizer = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        file.unlink(missing_ok=True)  # else the base's own file would change with its link
        _write_json(file, tokenizer | {"eos_token": end})


def _end_of_answers(tokenizers: RecipeTokenizers, section: EFTSection) -> str | None:
    """The token that ends the answers of the first tuned model, if it has a tokenizer.

    vLLM ends a grammar by the tokenizer's end token alone, and a base may never have been trained to end a
    turn.
    """
    tuned = (tokenizer for tokenizer in tokenizers.tuned.values() if tokenizer is not None)
    ends = (tokenizer.eos_token for tokenizer in tuned if tokenizer.eos_token_id in section.end_ids)
    return next(ends, None)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
