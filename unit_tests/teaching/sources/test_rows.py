import json

import pytest
from datasets import Dataset

from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Conversation, PreferencePair
from langchain_eft.teaching.sources import read_lesson


def conversation(i, **more):
    return {
        "messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f" a{i}\n"}],
        **more,
    }


def pair(i):
    return {"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"}


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


@pytest.mark.parametrize(("row", "kind"), [(conversation, Conversation), (pair, PreferencePair)])
def test_a_file_becomes_examples_of_one_kind(tmp_path, row, kind):
    lesson = read_lesson(write(tmp_path / "x.jsonl", map(row, range(20))), seed=0)
    assert {type(example) for example in (*lesson.train, *lesson.held_out)} == {kind}
    assert (len(lesson.train), len(lesson.held_out)) == (18, 2)


def test_the_split_follows_the_seed_and_no_held_out_example_is_learned(tmp_path):
    rows = [conversation(i % 30) for i in range(60)]  # every example twice
    file = write(tmp_path / "x.jsonl", rows)
    first, again, other = (read_lesson(file, seed) for seed in (0, 0, 1))
    assert first == again
    assert {e.place for e in first.held_out} != {e.place for e in other.held_out}
    asked = [{e.prompt[0].content for e in examples} for examples in (first.train, first.held_out)]
    assert not asked[0] & asked[1]
    assert len(first.train) + len(first.held_out) == 30


def test_answers_lose_the_white_space_around_them(tmp_path):
    lesson = read_lesson(write(tmp_path / "x.jsonl", map(conversation, range(8))), seed=0)
    assert all(e.messages[-1].content == e.messages[-1].content.strip() for e in lesson.train)


def test_prompt_and_completion_are_a_conversation(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(8)]
    lesson = read_lesson(write(tmp_path / "x.jsonl", rows), seed=0)
    assert [m.type for m in lesson.train[0].messages] == ["human", "ai"]


def test_a_pair_may_have_its_prompt_in_both_answers(tmp_path):
    def messages(i, text):
        return [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": text}]

    rows = [{"chosen": messages(i, "good"), "rejected": messages(i, "bad")} for i in range(8)]
    example = read_lesson(write(tmp_path / "x.jsonl", rows), seed=0).train[0]
    assert [m.type for m in example.prompt] == ["human"]
    assert (example.chosen.content, example.rejected.content) == ("good", "bad")


def test_a_saved_data_set_is_read_and_null_fields_are_dropped(tmp_path):
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": "{}"}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q{i}"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "1", "tool_call_id": "1"},
                {"role": "assistant", "content": "done"},
            ]
        }
        for i in range(8)
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    lesson = read_lesson(str(tmp_path / "set"), seed=0)
    assert [m.type for m in lesson.train[0].messages] == ["human", "ai", "tool", "ai"]
    assert lesson.train[0].messages[1].tool_calls[0]["name"] == "f"


MALFORMED = {
    "line 3 is empty": "",
    "line 3 is not readable JSON": "{",
    "line 3 is not a JSON object": "[1]",
    "line 3 has the fields ['text']": {"text": "hi"},
    "messages must be a list": {"messages": []},
    "two answers follow": {"messages": [*conversation(0)["messages"], {"role": "assistant", "content": "b"}]},
    "two user messages follow": {
        "messages": [{"role": "user", "content": "a"}, *conversation(0)["messages"]]
    },
    "nothing to answer": {"messages": [{"role": "assistant", "content": "a"}]},
    "a system message comes first": {
        "messages": [*conversation(0)["messages"], {"role": "system", "content": "a"}]
    },
    "which nothing answers": {"messages": [{"role": "user", "content": "a"}]},
    "the answer that calls the tool": {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "tool", "content": "1", "tool_call_id": "1"},
            {"role": "assistant", "content": "b"},
        ]
    },
    "an empty answer": {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]
    },
    "cannot be read": {"messages": [{"content": "no role"}]},
    "the messages cannot be read": {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": ["x"]},
        ]
    },
    "tools=5": conversation(0, tools=5),
    "has completion=5": {"prompt": "q", "completion": 5},
    "has completion=None": {"prompt": "q", "completion": None},
    "has prompt=5": {"prompt": 5, "completion": "a"},
    "inside one another": '{"prompt": "q", "completion": ' + "[" * 5000 + "]" * 5000 + "}",
    "half a character": '{"prompt": "q", "completion": "a \\ud800"}',
    "tools holds": conversation(0, tools=[{"type": "function"}]),
    "mixes conversations and pairs": pair(1),
    "chosen and rejected are equal": {"prompt": "q", "chosen": "a", "rejected": "a "},
    "has no prompt": {"chosen": "a", "rejected": "b"},
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_line_is_named(tmp_path, message):
    rows = [conversation(1), conversation(2), MALFORMED[message], *map(conversation, range(3, 12))]
    file = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(TeachingError, match="line 3") as raised:
        read_lesson(file, seed=0)
    assert message in str(raised.value)


def test_too_few_examples_are_refused(tmp_path):
    with pytest.raises(TeachingError, match="7 different examples"):
        read_lesson(write(tmp_path / "x.jsonl", map(conversation, range(7))), seed=0)


def test_an_empty_file_and_an_unknown_source_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(TeachingError, match="is empty"):
        read_lesson(str(tmp_path / "x.jsonl"), seed=0)
    with pytest.raises(TeachingError, match=r"cannot be read.*give a JSONL file"):
        read_lesson(str(tmp_path / "missing.jsonl"), seed=0)
    with pytest.raises(TeachingError, match="no data set of this name"):
        read_lesson(str(tmp_path / "missing"), seed=0)
