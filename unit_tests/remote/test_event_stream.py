import time

import pytest

from langchain_eft.remote.event_stream import event_data

STREAM = 'data: {"a": "Ça\u2028va\x85 \x1e"}\n\n: ping\n\nevent: x\ndata:two\n\ndata: [DONE]\n\n'.encode()
DATA = ['{"a": "Ça\u2028va\x85 \x1e"}'.encode(), b"two", b"[DONE]"]


async def cut(size, stream=STREAM):
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_found_however_the_stream_is_cut(size):
    assert [data async for data in event_data(cut(size), 100)] == DATA


async def test_carriage_returns_belong_to_no_data():
    async def pieces():
        yield STREAM.replace(b"\n", b"\r\n")

    assert [data async for data in event_data(pieces(), 100)] == DATA


async def test_a_line_without_end_is_an_error():
    assert [len(data) async for data in event_data(cut(7, b"data: " + b"x" * 990 + b"\n"), 1000)] == [990]
    with pytest.raises(ValueError, match="1000 bytes"):
        _ = [data async for data in event_data(cut(7, b"x" * 1010), 1000)]


async def test_a_long_line_in_many_pieces_is_joined_once():
    size, start = 4 * 2**20, time.process_time()
    (data,) = [data async for data in event_data(cut(256, b"data:" + b"x" * size + b"\n"), 2 * size)]
    assert len(data) == size
    assert time.process_time() - start < 5  # a join for each piece takes more than a minute
