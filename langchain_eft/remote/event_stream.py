"""Server-sent events: the data of each, as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

_DATA = b"data:"


async def event_data(pieces: AsyncIterator[bytes], longest: int) -> AsyncGenerator[bytes, None]:
    """The data of each event of a stream. Comments and other fields are left out.

    Lines end with a line feed, and with nothing else: JSON may hold the other line breaks of Unicode.

    Args:
        pieces: The stream, cut anywhere. Both servers write the data of an event in one line.
        longest: Bytes that a line may have.

    Raises:
        ValueError: A line is too long.
    """
    line = bytearray()
    async for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line += end
            if line.startswith(_DATA):
                yield bytes(line.removeprefix(_DATA).strip())
            line.clear()
        line += rest
        if len(line) > longest:
            raise ValueError(f"a line of more than {longest} bytes")
