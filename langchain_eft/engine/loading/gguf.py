"""The header of a GGUF file, checked before a reader allocates what it says."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def check_gguf(path: Path) -> int:
    """Refuse a GGUF file whose header promises more than the file holds.

    Returns:
        Number of weights in its tensors.

    Raises:
        CheckpointNotFoundError: The file is damaged.
    """
    with (
        reading(path, "it is no intact GGUF file; fetch it again"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return _check(_Cursor(content))


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


def _check(cursor: _Cursor) -> int:
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
    num_weights, ends = 0, [0]
    for _ in range(num_tensors):
        cursor.read_string()
        shape = [cursor.read("<Q") for _ in range(min(cursor.read("<I"), _MOST_DIMENSIONS))]
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(cursor.read("<I"))]
        num_weights += math.prod(shape)
        ends.append(cursor.read("<Q") + math.prod(shape) // block * size)
    alignment = settings.get(b"general.alignment", GGUF_DEFAULT_ALIGNMENT)
    cursor.skip(-cursor.offset % alignment + max(ends))
    return num_weights
