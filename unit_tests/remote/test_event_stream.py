import pytest

from langchain_eft.remote.event_stream import event_data

STREAM = 'data: {"a": "Ça\u2028va\x85 \x1e"}\n\n: ping\n\nevent: x\ndata:two\n\ndata: [DONE]\n\n'.encode()
DATA = ['{"a": "Ça\u2028va\x85 \x1e"}'.encode(), b"two", b"[DONE]"]


async def cut(size):
    for start in range(0, len(STREAM), size):
        yield STREAM[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_found_however_the_stream_is_cut(size):
    assert [data async for data in event_data(cut(size))] == DATA


async def test_carriage_returns_belong_to_no_data():
    async def pieces():
        yield STREAM.replace(b"\n", b"\r\n")

    assert [data async for data in event_data(pieces())] == DATA
