"""Folders for GGUF files, kept in a cache: settings, tokenizer, and weights where a device needs them."""

from __future__ import annotations

import json
import logging
import mmap
import shutil
import tempfile
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from langchain_eft.engine.cache_folder import CACHE_VARIABLE, cache_folder
from langchain_eft.engine.errors import CheckpointCacheError, EngineError, reading
from langchain_eft.engine.loading.gguf import read_header
from langchain_eft.engine.progress import Progress, quiet_transformers

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""The file with the hash of every other file of a converted folder."""


def converted(gguf: Path, progress: Progress, *, weights: bool = True) -> Path:
    """The folder for a GGUF file; the file is converted if the cache has no intact folder.

    Without `weights` the folder has the settings and the tokenizer, and may lack the safetensors.

    A folder is named after the content of its source and holds a hash of every file. It appears by one atomic
    rename, so a crash cannot leave an incomplete model behind. Only one process converts at a time; others
    wait for its lock, which the system releases if the process is killed.

    Raises:
        CheckpointNotFoundError: The file is damaged.
        CheckpointCacheError: The cache folder cannot be written.
    """
    with reading(gguf, "make it readable"):
        digest = checksum(gguf)
    folder = cache_folder() / f"{gguf.stem}-{digest[:16]}"
    if is_intact(folder, weights=weights):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        progress(f"Preparing {gguf.name} (once, about 10 s)")
        with FileLock(folder.parent / ".converting.lock"):
            if not is_intact(folder, weights=weights):  # else another process was faster
                for leftover in folder.parent.glob(".new-*"):  # of a process that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
                    fresh = Path(scratch) / "model"
                    convert_gguf(gguf, fresh, weights=weights)
                    seal(fresh)
                    install(fresh, folder)
    except EngineError:
        raise
    except Exception as error:  # safetensors and tokenizers report a full disk by exceptions of their own
        raise CheckpointCacheError(
            f"Converted weights cannot be written to {str(folder.parent)!r} ({error}): make it writable, "
            f"free some space, or set {CACHE_VARIABLE} to a writable folder."
        ) from error
    return folder


def convert_gguf(gguf: Path, folder: Path, *, weights: bool) -> None:
    """Convert a GGUF file to a transformers folder with its tokenizer.

    Weights are stored as bfloat16, which changes a value by 1/512 at most. Formats of 4 bits have changed it
    more: Q4_1 by up to 1/30 of the range of its block.

    Raises:
        CheckpointNotFoundError: The file is damaged.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    num_stored = read_header(gguf).num_weights
    with quiet_transformers(), reading(gguf, "fetch the file again, or use another one"):
        config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        with torch.device("meta"):
            described = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        num_described = described.num_parameters()
        if num_described > 2 * num_stored:  # missing weights would be allocated
            raise ValueError(f"it describes a model of {num_described} weights and holds {num_stored}")
        model = _dequantized(gguf, config) if weights else None
        tokenizer = AutoTokenizer.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False
        )
    with quiet_transformers():
        if model is None:
            config.save_pretrained(folder)
            GenerationConfig.from_model_config(config).save_pretrained(folder)
        else:
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _dequantized(gguf: Path, config: Any) -> Any:
    """The model of a file, with weights in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model, report = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        config=config,
        gguf_file=gguf.name,
        trust_remote_code=False,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        ignore_mismatched_sizes=True,  # refused below, with their names
        output_loading_info=True,
    )
    unusable = report["missing_keys"] | {key for key, *_ in report["mismatched_keys"]}
    if unusable:
        raise ValueError(f"weights are missing or have other shapes: {sorted(unusable)[:5]}")
    return model


def seal(folder: Path) -> None:
    """Write the hash of every file to a manifest, so that damage can be detected."""
    hashes = {file.name: checksum(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1))


def is_intact(folder: Path, *, weights: bool = True) -> bool:
    """Whether a converted folder is complete, with or without weights, and no file has changed."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text())
        complete = not weights or any(name.endswith(".safetensors") for name in hashes)
        return complete and all(checksum(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError):
        return False


def install(fresh: Path, folder: Path) -> None:
    """Move a sealed folder into place, instead of one that is damaged or lacks weights."""
    if folder.exists():
        if not is_intact(folder, weights=False):
            logger.warning("The converted weights in %s were damaged, and are replaced.", folder)
        shutil.rmtree(folder)
    fresh.rename(folder)


def checksum(path: Path) -> str:
    """A hex digest that detects damage. Half a gigabyte takes 0.05 s; a cryptographic hash takes 0.5 s."""
    with path.open("rb") as file:
        if not path.stat().st_size:  # an empty file cannot be mapped
            return str(xxhash.xxh3_128_hexdigest(b""))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return str(xxhash.xxh3_128_hexdigest(content))
