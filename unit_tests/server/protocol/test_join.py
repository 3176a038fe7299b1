import time

from langchain_eft.server.protocol.join import join


def test_texts_and_lists_are_put_together():
    pieces = [
        {"text": "a", "ids": [1], "reason": None, "logprobs": None},
        {"text": "b", "ids": [2], "reason": None, "logprobs": {"tokens": ["a"]}},
        {"text": "", "reason": "stop", "logprobs": {"tokens": ["b"]}},
    ]
    joined = {"text": "ab", "ids": [1, 2], "reason": "stop", "logprobs": {"tokens": ["a", "b"]}}
    assert join(pieces) == joined
    assert join([]) == {}


def test_parts_of_one_index_are_one():
    pieces = [
        {"calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]},
        {"calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "id": "y"}]},
        {"calls": [{"index": 1, "function": {"arguments": "[]"}}]},
    ]
    assert join(pieces)["calls"] == [
        {"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "id": "y", "function": {"arguments": "[]"}},
    ]


def test_the_time_grows_with_the_number_of_pieces_and_not_with_its_square():
    pieces = [{"ids": [number]} for number in range(100_000)]
    started = time.thread_time()
    assert join(pieces) == {"ids": list(range(100_000))}
    assert time.thread_time() - started < 2  # 40 GB are copied if each piece copies what is joined


def test_pieces_stay_as_they_are():
    pieces = [{"a": [1], "b": {"c": "d"}}, {"a": [2], "b": {"c": "e"}}]
    join(pieces)
    assert pieces == [{"a": [1], "b": {"c": "d"}}, {"a": [2], "b": {"c": "e"}}]
