"""Conversion of GGUF files to folders of safetensors, which are kept in a cache."""

from __future__ import annotations

import json
import logging
import mmap
import shutil
import tempfile
from pathlib import Path

import xxhash

from langchain_eft.engine.cache_folder import CACHE_VARIABLE, cache_folder
from langchain_eft.engine.errors import CheckpointCacheError
from langchain_eft.engine.progress import Progress, quiet_transformers

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


def converted(gguf: Path, progress: Progress) -> Path:
    """The folder of safetensors for a GGUF file; the file is converted if the cache has no intact folder.

    A folder is named after the content of its source and holds a hash of every file. It appears by one atomic
    rename, so neither a crash nor a second process can leave an incomplete model behind.

    Raises:
        CheckpointCacheError: The cache folder cannot be written.
    """
    digest = checksum(gguf)
    folder = cache_folder() / f"{gguf.stem}-{digest[:16]}"
    if is_intact(folder):
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
            f"Converted weights cannot be written to {str(folder.parent)!r} ({error}): make it writable, "
            f"free some space, or set {CACHE_VARIABLE} to a writable folder."
        ) from error
    return folder


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a transformers folder with its tokenizer.

    Values are rounded to bfloat16 and stored as float32. A CPU can then map the files into memory; converting
    to float32 at every start would take longer than the rest of loading.
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


def seal(folder: Path) -> None:
    """Write the hash of every file to a manifest, so that damage can be detected."""
    hashes = {file.name: checksum(file) for file in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(hashes, indent=1))


def is_intact(folder: Path) -> bool:
    """Whether a converted folder is complete and no file has changed."""
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
    """Move a sealed folder into place. If another process was faster, keep its intact folder."""
    if folder.exists() and not is_intact(folder):
        shutil.rmtree(folder)
    try:
        fresh.rename(folder)
    except OSError:
        if not is_intact(folder):
            raise


def checksum(path: Path) -> str:
    """A hex digest that detects damage. Half a gigabyte takes 0.05 s; a cryptographic hash takes 0.5 s."""
    with path.open("rb") as file:
        if not path.stat().st_size:  # an empty file cannot be mapped
            return str(xxhash.xxh3_128_hexdigest(b""))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return str(xxhash.xxh3_128_hexdigest(content))
