"""The header of a GGUF file, checked before a reader allocates what it says."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from langchain_eft.engine.errors import reading

_FORMATS = {
    GGUFValueType.UINT8: "<B", GGUFValueType.INT8: "<b", GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT16: "<H", GGUFValueType.INT16: "<h", GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i", GGUFValueType.UINT64: "<Q", GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT32: "<f", GGUFValueType.FLOAT64: "<d",
}  # fmt: skip

_LONGEST_ARRAY = 2**22
"""Elements of an array, far above any vocabulary. Readers make several Python objects of each."""

_MOST_DIMENSIONS = 4


class StoredTensor(NamedTuple):
    """A tensor of a file."""

    kind: GGMLQuantizationType  # how its numbers are stored
    shape: tuple[int, ...]  # as torch has it
    first: int  # its first byte in the file
    nbytes: int  # bytes


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of itself."""

    architecture: str  # its family, by llama.cpp's names
    tensors: dict[str, StoredTensor]

    @property
    def num_weights(self) -> int:
        """Number of weights in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name."""
    return path.suffix == ".gguf" and path.is_file()


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file. One that promises more than the file holds is refused.

    Raises:
        CheckpointNotFoundError: The file is damaged.
    """
    with reading(path, "it is no intact GGUF file; fetch it again"):
        status = path.stat()
        return _read_once(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_once(path: Path, *_: int) -> GgufHeader:
    """A vocabulary of 150,000 tokens takes 0.3 s to skip."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _read(_Cursor(content))


@dataclass
class _Cursor:
    """A position in the file. Reading beyond its end is an error."""

    content: mmap.mmap
    offset: int = 0

    def skip(self, size: int) -> None:
        self.offset += size
        if self.offset > len(self.content):
            raise ValueError("the file ends early")

    def read(self, layout: str) -> Any:
        start = self.offset
        self.skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self.content, start)[0]

    def read_string(self) -> bytes:
        length = self.read("<Q")
        self.skip(length)
        return self.content[self.offset - length : self.offset]

    def read_value(self, kind: int) -> Any:
        """A number or a string; None for an array."""
        if kind == GGUFValueType.STRING:
            return self.read_string()
        if kind != GGUFValueType.ARRAY:
            return self.read(_FORMATS[GGUFValueType(kind)])
        element, count = self.read("<I"), self.read("<Q")
        if count > _LONGEST_ARRAY:
            raise ValueError(f"an array has {count} elements")
        if element in _FORMATS:
            self.skip(count * struct.calcsize(_FORMATS[GGUFValueType(element)]))
        else:
            for _ in range(count):
                self.read_value(element)
        return None


def _read(cursor: _Cursor) -> GgufHeader:
    magic, version = cursor.read("<4s"), cursor.read("<I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r}, version {version}")
    num_tensors, num_settings = cursor.read("<Q"), cursor.read("<Q")
    settings = {}
    for _ in range(num_settings):
        name = cursor.read_string()
        settings[name] = cursor.read_value(cursor.read("<I"))
    for name, value in settings.items():
        if name.endswith(b".block_count") and value > num_tensors:
            raise ValueError(f"{value} layers, but {num_tensors} tensors")
    tensors = dict(_read_tensor(cursor) for _ in range(num_tensors))
    cursor.skip(-cursor.offset % settings.get(b"general.alignment", GGUF_DEFAULT_ALIGNMENT))
    start = cursor.offset
    cursor.skip(max((tensor.first + tensor.nbytes for tensor in tensors.values()), default=0))
    placed = {name: tensor._replace(first=start + tensor.first) for name, tensor in tensors.items()}
    return GgufHeader(settings.get(b"general.architecture", b"").decode(), placed)


def _read_tensor(cursor: _Cursor) -> tuple[str, StoredTensor]:
    """A tensor's name and what it is; its first byte is counted from the end of the header."""
    name = cursor.read_string().decode()
    shape = [cursor.read("<Q") for _ in range(min(cursor.read("<I"), _MOST_DIMENSIONS))]
    kind = GGMLQuantizationType(cursor.read("<I"))
    block, size = GGML_QUANT_SIZES[kind]
    nbytes = math.prod(shape) // block * size
    return name, StoredTensor(kind, tuple(reversed(shape)), cursor.read("<Q"), nbytes)
