import json

import pytest

from langchain_eft.jsonl import DEEPEST, parse_line, split_lines

BREAKS = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee\rf"
"""Everything but a line feed that Python's `splitlines` takes for the end of a line."""


def nested(depth):
    return ("[" * depth + "]" * depth).encode()


def test_lines_end_at_line_feeds_alone():
    content = "\n".join(json.dumps(text, ensure_ascii=False) for text in (BREAKS, "", "\n")) + "\r\n\n"
    assert [parse_line(line) for line in split_lines(content.encode())] == [BREAKS, "", "\n"]


def test_blank_lines_count_within_a_file_and_not_at_its_end():
    assert split_lines(b"1\n\n2\n\n") == [b"1", b"", b"2"]
    assert split_lines(b"\n") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "delimiter|property name"),
        (b'"\xff"', "codec can't decode"),
        (rb'{"a": ["\ud800"]}', "half a character"),
        (nested(DEEPEST + 1), "inside one another"),
        (nested(100_000), "inside one another"),
    ],
)
def test_what_cannot_be_read_is_a_value_error(line, message):
    with pytest.raises(ValueError, match=message):
        parse_line(line)


def test_as_deep_as_allowed():
    assert json.dumps(parse_line(nested(DEEPEST))).encode() == nested(DEEPEST)
