"""Server-sent events: the data of each, as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

_DATA = b"data:"


async def event_data(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event of a stream. Comments and other fields are left out.

    Lines end with a line feed, and with nothing else: JSON may hold the other line breaks of Unicode.

    Args:
        pieces: The stream, cut anywhere. Both servers write the data of an event in one line.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                yield line.removeprefix(_DATA).strip()
