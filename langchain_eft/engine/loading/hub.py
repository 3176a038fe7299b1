"""Models on the hub: their ids, their files and sizes, and their download with progress in bytes."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from langchain_eft.engine.errors import CheckpointNotFoundError, InsufficientDiskError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

    from langchain_eft.engine.progress import Progress

_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_NAME = r"[A-Za-z0-9][\w.-]*"
_SOURCE = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?P<path>(/{_NAME})*)(@(?P<revision>[\w./-]+))?")


def is_model_file(name: str) -> bool:
    """Whether a file of a model's folder is part of the model: its weights, configuration or tokenizer."""
    # Some repositories also hold the weights in another format, as "consolidated" files.
    return not name.startswith("consolidated") and any(fnmatch(name, pattern) for pattern in _PATTERNS)


@dataclass(frozen=True)
class HubModel:
    """A model, an adapter or a GGUF file on the hub, written `owner/name[/path][@revision]`."""

    repo: str  # `owner/name`
    path: str = ""  # subfolder or `.gguf` file inside the repository; empty for its root
    revision: str | None = None  # branch, tag or commit; None for the default branch

    @classmethod
    def parse(cls, text: str) -> HubModel | None:
        """Parse a hub id; None if the text is not one."""
        match = _SOURCE.fullmatch(text)
        if match is None:
            return None
        return cls(match["repo"], match["path"].removeprefix("/"), match["revision"])

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        return self.repo + path + (f"@{self.revision}" if self.revision else "")

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a single GGUF file."""
        return self.path.endswith(".gguf")

    def includes(self, file: str) -> bool:
        """Whether a file of the repository is part of the model. Files of other folders are not."""
        if self.is_gguf:
            return file == self.path
        folder, _, name = file.rpartition("/")
        return folder == self.path and is_model_file(name)


@dataclass(frozen=True)
class Listing:
    """The hub's description of a model, which is available before any file is fetched."""

    commit: str
    files: dict[str, int]  # name and size in bytes of each file of the model
    parameters: int | None  # number of weights as the hub counts them, or None if it does not say

    @property
    def weight_bytes(self) -> int:
        """Size in bytes of the files that hold weights."""
        return sum(size for name, size in self.files.items() if name.endswith((".safetensors", ".gguf")))


def fetch_listing(model: HubModel) -> Listing | None:
    """The hub's description of a model, or None if the hub cannot be reached.

    Raises:
        CheckpointNotFoundError: The hub has no such model, or the user has to accept its license.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(model.repo, revision=model.revision, files_metadata=True, timeout=10)
    except GatedRepoError as error:
        raise CheckpointNotFoundError(
            f"The model {str(model)!r} is gated: accept its license on the hub, and log in with `hf auth "
            "login` or set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise CheckpointNotFoundError(
            f"The hub has no model {str(model)!r} that you may read: check its name and revision, or log "
            "in with `hf auth login` if it is private."
        ) from error
    except Exception:  # noqa: BLE001  (whatever the failure, the cache may still hold the model)
        return None
    files = {file.rfilename: file.size or 0 for file in info.siblings or () if model.includes(file.rfilename)}
    if not files:
        raise CheckpointNotFoundError(
            f"The hub's repository {model.repo!r} holds no files for {str(model)!r}: check the subfolder and "
            "the revision."
        )
    return Listing(info.sha or "", files, _parameters(info) if not model.path else None)


def _parameters(info: ModelInfo) -> int | None:
    return info.safetensors.total if info.safetensors else None


def fetch(model: HubModel, listing: Listing | None, progress: Progress, remedy: str) -> Path:
    """Fetch a model from the hub, or find it in the hub's cache.

    Args:
        model: The model to fetch.
        listing: The hub's description of it; None looks only in the cache.
        progress: Receives how much has been fetched.
        remedy: What the user can do if the model cannot be fetched.

    Returns:
        Path of its folder or GGUF file.

    Raises:
        CheckpointNotFoundError: The hub is not reachable and the cache does not hold the model.
        InsufficientDiskError: The missing files do not fit on the disk.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    missing_bytes = 0 if listing is None else _missing_bytes(model, listing)
    _require_disk(model, missing_bytes)
    progress(f"Fetching {model}" + (f" ({decimal(missing_bytes)})" if missing_bytes else ""))
    prefix = f"{model.path}/" if model.path else ""
    try:
        folder = snapshot_download(
            model.repo,
            revision=(listing.commit if listing else None) or model.revision,
            allow_patterns=list(listing.files) if listing else _offline_patterns(model, prefix),
            local_files_only=listing is None,
            tqdm_class=_progress_bar(str(model), missing_bytes, progress),
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFoundError(
            f"The model {str(model)!r} is not on this machine and could not be fetched from the hub "
            f"({type(error).__name__}): {remedy}."
        ) from error
    path = Path(folder) / model.path
    if not path.exists():
        raise CheckpointNotFoundError(
            f"The model {str(model)!r} is not on this machine: the hub's cache holds only other files "
            f"of {model.repo!r}; {remedy}."
        )
    return path


def _offline_patterns(model: HubModel, prefix: str) -> list[str]:
    return [model.path] if model.is_gguf else [prefix + pattern for pattern in _PATTERNS]


def _missing_bytes(model: HubModel, listing: Listing) -> int:
    """Size of the files that are not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return sum(
        size
        for name, size in listing.files.items()
        if not isinstance(try_to_load_from_cache(model.repo, name, revision=listing.commit), str)
    )


def _require_disk(model: HubModel, missing_bytes: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if missing_bytes > free:
        raise InsufficientDiskError(
            f"Fetching {str(model)!r} needs {decimal(missing_bytes)} on disk, but only {decimal(free)} are "
            f"free in {str(folder)!r}: free some space, or set HF_HOME to a larger disk."
        )


def _progress_bar(name: str, total: int, progress: Progress) -> Any:
    """A tqdm class that reports bytes to `progress` instead of drawing a bar."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002
            # This skips the hub's constructor: bytes have to be counted even if the user disabled its bars.
            settings = {**kwargs, "disable": False, "file": io.StringIO()}
            super(tqdm, self).__init__(*args, **settings)

        def display(self, *_: Any, **__: Any) -> None:
            if total and self.unit == "B" and self.n:
                progress(f"Fetching {name}: {decimal(min(self.n, total))} of {decimal(total)}")

    return Bar
