"""The files of a tokenizer: what a server sends of them, how they are kept, and how they are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from pydantic import field_validator

from langchain_eft.engine.cache_folder import cache_folder
from langchain_eft.engine.errors import CheckpointCacheError, CheckpointNotFoundError, reading
from langchain_eft.engine.recipe.frozen import FrozenModel

_CONFIG = "tokenizer_config.json"
_OF_THIS_MACHINE = ("name_or_path", "is_local", "local_files_only", "auto_map", "_commit_hash")
"""Settings that say where the tokenizer came from, or name code."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


LARGEST_FILES = 128 * 2**20
"""Bytes of all files. Those of large vocabularies have 40 million."""


class TokenizerFiles(FrozenModel):
    """A tokenizer's files as text, by name."""

    files: dict[str, str]

    @field_validator("files", mode="before")
    @classmethod
    def _few(cls, files: Any) -> Any:
        if isinstance(files, dict) and len(files) > 100:  # before an error is made of each
            raise ValueError(f"{len(files)} files: a tokenizer has a few.")
        return files

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


def tokenizer_files(tokenizer: Any) -> TokenizerFiles:
    """The files of a loaded tokenizer, with the chat template that it renders."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key not in _OF_THIS_MACHINE}
        (folder / _CONFIG).write_text(json.dumps(kept), encoding="utf-8")
        return TokenizerFiles(
            files={
                str(path.relative_to(folder)): path.read_bytes().decode()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        )


def cached_tokenizer(digest: str, fetch: Callable[[], TokenizerFiles]) -> Any:
    """A tokenizer by the hash of its files, which are fetched once and kept in the cache folder.

    Args:
        digest: The hash.
        fetch: Gets the files.

    Raises:
        CheckpointNotFoundError: The files do not have this hash, or are no tokenizer.
        CheckpointCacheError: The cache folder cannot be written.
    """
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise CheckpointNotFoundError(f"The server names a tokenizer {digest[:80]!r}, which is no hash.")
    folder = cache_folder() / "tokenizers" / digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _store(fetch(), digest, folder)
    except OSError as error:
        raise CheckpointCacheError(
            f"The server's tokenizer cannot be kept in {str(folder.parent)!r} ({error}): set "
            "LANGCHAIN_EFT_CACHE to a folder that can be written."
        ) from error
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, without torch.

    Raises:
        CheckpointNotFoundError: The folder holds no tokenizer.json that can be read.
    """
    # From this module and not from the package: `AutoTokenizer` imports torch.
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no tokenizer.json: give a folder that `langchain-eft export` wrote."
        )
    with reading(
        folder, "its tokenizer's files are damaged: remove the folder, and fetch or export it again"
    ):
        tokenizer = TokenizersBackend.from_pretrained(folder, trust_remote_code=False)
        tokenizer("")  # some wrong settings are only read now
        return tokenizer


def _store(received: TokenizerFiles, digest: str, folder: Path) -> None:
    if received.hash != digest:
        raise CheckpointNotFoundError(
            f"The server sends a tokenizer of hash {received.hash}, and named {digest}: try again."
        )
    with TemporaryDirectory(dir=folder.parent) as name:
        staging = Path(name) / "files"
        for file, text in received.files.items():
            parts = file.split("/")
            if not all(map(_NAME.fullmatch, parts)):
                raise CheckpointNotFoundError(f"The server sends a file {file[:80]!r}, which is no name.")
            path = staging.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        staging.rename(folder)
