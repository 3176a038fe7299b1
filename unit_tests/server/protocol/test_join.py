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


def test_each_piece_is_looked_at_once():
    class Counted(list):
        seen = 0

        def __iter__(self):
            Counted.seen += len(self)
            return super().__iter__()

    pieces = [{"text": "a", "ids": Counted([1])} for _ in range(1000)]
    assert join(pieces) == {"text": "a" * 1000, "ids": [1] * 1000}
    assert Counted.seen < 5000  # half a million if what is joined is copied for each piece


def test_pieces_stay_as_they_are():
    pieces = [{"a": [1], "b": {"c": "d"}}, {"a": [2], "b": {"c": "e"}}]
    join(pieces)
    assert pieces == [{"a": [1], "b": {"c": "d"}}, {"a": [2], "b": {"c": "e"}}]
