"""Models on the hub: what they are called, how large they are, and fetching them with progress in bytes."""

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


@dataclass(frozen=True)
class HubModel:
    """A model, an adapter or a GGUF file on the hub, written `owner/name[/path][@revision]`.

    Attributes:
        repo: `owner/name`.
        path: Subfolder or `.gguf` file inside it; empty for the repository itself.
        revision: Branch, tag or commit; None for the default branch.
    """

    repo: str
    path: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubModel | None:
        """The model that a text names, or None if it is no hub id."""
        match = _SOURCE.fullmatch(text)
        if match is None:
            return None
        return cls(match["repo"], match["path"].removeprefix("/"), match["revision"])

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        return self.repo + path + (f"@{self.revision}" if self.revision else "")

    @property
    def is_gguf(self) -> bool:
        """Whether it is a single GGUF file."""
        return self.path.endswith(".gguf")

    def wants(self, file: str) -> bool:
        """Whether a file of the repository is part of the model: those of its own folder, not of others."""
        if self.is_gguf:
            return file == self.path
        folder, _, name = file.rpartition("/")
        # Some repositories hold their weights a second time in their makers' own format.
        return (
            folder == self.path
            and not name.startswith("consolidated")
            and any(fnmatch(name, pattern) for pattern in _PATTERNS)
        )


@dataclass(frozen=True)
class Listing:
    """What the hub says about a model, before anything is fetched.

    Attributes:
        commit: Hash of the revision.
        files: Names of the files that the model consists of, with their bytes.
        parameters: Number of weights by the hub's own count, or None where it has none.
    """

    commit: str
    files: dict[str, int]
    parameters: int | None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the files that hold weights."""
        return sum(size for name, size in self.files.items() if name.endswith((".safetensors", ".gguf")))


def listing(model: HubModel) -> Listing | None:
    """What the hub says about a model; None where the hub cannot be reached.

    Raises:
        CheckpointNotFoundError: No such model, or one that needs a license to be accepted.
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
    except Exception:  # noqa: BLE001  (whatever keeps the hub from answering, the cache may still hold the model)
        return None
    files = {file.rfilename: file.size or 0 for file in info.siblings or () if model.wants(file.rfilename)}
    if not files:
        raise CheckpointNotFoundError(
            f"The hub's repository {model.repo!r} holds no files for {str(model)!r}."
        )
    return Listing(info.sha or "", files, _parameters(info) if not model.path else None)


def _parameters(info: ModelInfo) -> int | None:
    return info.safetensors.total if info.safetensors else None


def fetch(model: HubModel, known: Listing | None, progress: Progress, remedy: str) -> Path:
    """Fetch a model, or find it in the hub's own cache.

    Args:
        model: Which.
        known: What the hub says about it, or None to look in the cache alone.
        progress: Told how much has been fetched.
        remedy: What to do where it can neither be fetched nor found.

    Returns:
        Its folder, or its GGUF file.

    Raises:
        CheckpointNotFoundError: Neither reachable nor in the cache.
        InsufficientDiskError: More to fetch than the disk has room for.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    missing = 0 if known is None else _missing(model, known)
    _require_disk(model, missing)
    progress(f"Fetching {model}" + (f" ({decimal(missing)})" if missing else ""))
    prefix = f"{model.path}/" if model.path else ""
    try:
        folder = snapshot_download(
            model.repo,
            revision=(known.commit if known else None) or model.revision,
            allow_patterns=list(known.files) if known else _offline_patterns(model, prefix),
            local_files_only=known is None,
            tqdm_class=_bar(str(model), missing, progress),
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFoundError(
            f"The model {str(model)!r} is not on this machine and could not be fetched from the hub "
            f"({type(error).__name__}): {remedy}."
        ) from error
    found = Path(folder) / model.path
    if not found.exists():
        raise CheckpointNotFoundError(
            f"The model {str(model)!r} is not on this machine: the hub's cache holds other files of "
            f"{model.repo!r} only; {remedy}."
        )
    return found


def _offline_patterns(model: HubModel, prefix: str) -> list[str]:
    return [model.path] if model.is_gguf else [prefix + pattern for pattern in _PATTERNS]


def _missing(model: HubModel, known: Listing) -> int:
    """Bytes that are not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return sum(
        size
        for name, size in known.files.items()
        if not isinstance(try_to_load_from_cache(model.repo, name, revision=known.commit), str)
    )


def _require_disk(model: HubModel, missing: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise InsufficientDiskError(
            f"Fetching {str(model)!r} needs {decimal(missing)} on disk and {decimal(free)} are free in "
            f"{str(folder)!r}: free some space, or set HF_HOME to a larger disk."
        )


def _bar(name: str, total: int, progress: Progress) -> Any:
    """A progress bar class that tells its bytes instead of drawing itself."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002
            # Not the hub's own constructor: what somebody has switched off still has to count here.
            settings = {**kwargs, "disable": False, "file": io.StringIO()}
            super(tqdm, self).__init__(*args, **settings)

        def display(self, *_: Any, **__: Any) -> None:
            if total and self.unit == "B" and self.n:
                progress(f"Fetching {name}: {decimal(min(self.n, total))} of {decimal(total)}")

    return Bar
