"""Compiled kernels: each is compiled once a machine, and kept as an object file in the user's cache folder.

A kernel that is in the folder is loaded in milliseconds, by llvmlite alone: numba is not imported. Files
appear by an atomic rename, so processes may compile the same kernel at once. Where no file can be kept, as in
a read-only home, each process compiles its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from langchain_eft.engine.cache_folder import cache_folder
from langchain_eft.engine.kernels.compiler import compile_kernel, target_machine
from langchain_eft.engine.kernels.target import Target, host
from langchain_eft.engine.progress import Progress, silent

logger = logging.getLogger(__name__)

Kernel = Callable[..., None]
"""A compiled kernel: a function of the address of its arguments. It releases the interpreter lock."""

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64)

_DIGEST_BYTES = 32

_loaded: dict[tuple[str, str, Target], Kernel] = {}
_engines: list[Any] = []
"""What holds the machine code of the loaded kernels."""

_lock = Lock()


def kernel(room: str, name: str, *, target: Target | None = None, progress: Progress = silent) -> Kernel:
    """A kernel of a module in this folder, compiled if the cache has none.

    Args:
        room: Name of a module. Its function `build(name, target)` returns a Python function for
            `compile_kernel`. The module is imported only then.
        name: Name of the kernel, which `build` knows.
        target: The processor, or None for that of this machine.
        progress: Callback that says when a kernel is compiled.
    """
    target = target or host()
    with _lock:
        if (room, name, target) not in _loaded:
            code = _read(_file(room, name, target)) or _compile(room, name, target, progress)
            _loaded[room, name, target] = _load(code, name)
        return _loaded[room, name, target]


def _compile(room: str, name: str, target: Target, progress: Progress) -> bytes:
    progress(f"Compiling the kernel {name} for this processor (once, some seconds)")
    function = import_module(room).build(name, target)
    code = compile_kernel(function, name, target)
    _write(_file(room, name, target), code)
    return code


def _load(code: bytes, name: str) -> Kernel:
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine(host()))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return _PROTOTYPE(engine.get_function_address(name))


def address_of(function: Kernel) -> int:
    """Where the machine code of a kernel is."""
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None  # noqa: S101  (no function lies at 0)
    return address


def _file(room: str, name: str, target: Target) -> Path:
    key = hashlib.sha256(f"{room} {_sources()} {target}".encode()).hexdigest()[:24]
    return cache_folder() / "kernels" / f"{name}-{key}.o"


@cache
def _sources() -> str:
    """What the machine code depends on, beside the processor."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{digest} numba {version('numba')} llvmlite {version('llvmlite')}"


def _read(file: Path) -> bytes | None:
    """The code in a file, or None if there is none, it is damaged, or others could have written it."""
    with suppress(OSError):
        if _is_private(file.parent):
            content = file.read_bytes()
            digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(code).digest() == digest:
                return code
    return None


def _write(file: Path, code: bytes) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(file.parent):
            raise PermissionError(f"others may write to {str(file.parent)!r}")
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".new-", delete=False) as fresh:
            fresh.write(hashlib.sha256(code).digest() + code)
        Path(fresh.name).replace(file)
    except OSError as error:
        logger.info("The compiled kernel %s is not kept: %s.", file.name, error)


def _is_private(folder: Path) -> bool:
    """Whether nobody else can write to a folder: what it holds is going to run."""
    if os.name != "posix":
        return True  # the user's own folder is private there
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
