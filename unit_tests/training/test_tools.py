"""What `tools` is taught with: calls that are right, and nothing of the evaluation."""

import itertools
import json
import re

import pytest
from langchain_core.messages import AIMessage

from langchain_eft.evaluation.tool_calls import REQUESTS, REQUESTS_WITHOUT_ARGUMENTS, tool_call_cases
from langchain_eft.teaching.sources.conversations import read_conversation
from training.smol.tasks.tools import phrasings
from training.smol.tasks.tools.conversations import KINDS, single_call, tool_conversation
from training.smol.tasks.tools.everyday import ADJECTIVES, ARGUMENT_NAMES, NOUNS, VERBS
from training.smol.tasks.tools.words import RESERVED, Part, Words, split_words, vocabulary_words

SYLLABLES = ("ba", "cor", "dil", "mo", "nat", "per", "qua", "sen", "tol", "vir", "zu", "lin")
VOCABULARY = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]
WORD = re.compile(r"\w+")
CHATS = [("How are you?", {"role": "assistant", "content": "Fine."})]


class Tokenizer:
    @staticmethod
    def get_vocab():
        return dict.fromkeys(["Ġcopper", "ĠTrain", "Ġtrain", "Ġof", "ing", "Ġnaïve", "Ġx1y", "Ġhouse"], 0)


def conversations(count=400, part=Part.TRAINING):
    words = Words([*VOCABULARY, *sorted(RESERVED)], seed=3, part=part)
    return [tool_conversation(words, CHATS) for _ in range(count)]


def texts(value):
    """All names and texts in a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for name, each in value.items():
                yield name
                yield from texts(each)
        case list():
            for each in value:
                yield from texts(each)


def test_words_are_those_of_the_vocabulary():
    assert vocabulary_words(Tokenizer) == ["copper", "house", "train"]


def test_no_word_belongs_to_two_parts_or_to_the_evaluation():
    owners = {word: [part for part in Part if part.owns(word)] for word in (*VOCABULARY, *VERBS, *RESERVED)}
    assert all(len(parts) <= 1 for parts in owners.values())
    assert not any(owners[word] for word in RESERVED)
    for part in Part:
        assert sum(part in parts for parts in owners.values()) > 100
    calls = [call for case in tool_call_cases(200) for call in case.expected]
    assert {word for call in calls for word in (*call["name"].split("_"), *call["args"])} <= RESERVED


def test_nothing_that_is_drawn_has_a_word_of_the_evaluation():
    lists = (*VERBS, *NOUNS, *ADJECTIVES, *ARGUMENT_NAMES)
    assert not RESERVED & {part for word in lists for part in (word, *word.split("_"))}
    for row in conversations():
        calls = [c["function"] for m in row["messages"] for c in m.get("tool_calls", ())]
        drawn = [row.get("tools", []), [m["content"] for m in row["messages"]], calls]
        found = {word for text in texts(drawn) for word in (*split_words(text), *WORD.findall(text.lower()))}
        assert not RESERVED & found, row


def bare(template):
    return re.sub(r"\W+", " ", re.sub(r"\{.*?\}", "_", template.lower())).strip()


def test_no_sentence_is_the_evaluations_or_belongs_to_two_parts():
    evaluated = {bare(template) for template in (*REQUESTS, *REQUESTS_WITHOUT_ARGUMENTS)}
    for sentences in (phrasings.WITH_ARGUMENTS, phrasings.WITHOUT_ARGUMENTS, phrasings.IN_PROSE):
        by_part = {part: {bare(template) for template in sentences[part]} for part in Part}
        for first, second in itertools.combinations([evaluated, *by_part.values()], 2):
            assert not first & second


@pytest.mark.parametrize("part", Part)
def test_a_single_call_fits_its_tool_and_the_request_has_its_values(part):
    words = Words(VOCABULARY, seed=1, part=part)
    for _ in range(200):
        tools, request, (name, arguments) = single_call(words)
        (tool,) = (tool for tool in tools if tool.name == name)
        assert fits(arguments, tool.schema["function"]["parameters"])
        leaves = [leaf for value in arguments.values() for leaf in values_in(value)]
        for leaf in leaves:
            assert str(leaf) in request["content"] or json.dumps(leaf) in request["content"]


TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def fits(value, schema):
    """Whether a value fits a schema, as far as the schemas here go."""
    if "anyOf" in schema:
        return value is None or fits(value, schema["anyOf"][0])
    if isinstance(value, bool) is not (schema["type"] == "boolean"):
        return False
    if not isinstance(value, TYPES[schema["type"]]) or value not in schema.get("enum", [value]):
        return False
    if isinstance(value, list):
        return all(fits(item, schema["items"]) for item in value)
    if isinstance(value, dict):
        properties = schema["properties"]
        complete = set(schema.get("required", ())) <= set(value) <= set(properties)
        return complete and all(fits(each, properties[name]) for name, each in value.items())
    return True


def values_in(value):
    """Texts and numbers of a value; truth may be told in other words."""
    match value:
        case bool():
            return
        case dict():
            yield from (leaf for each in value.values() for leaf in values_in(each))
        case list():
            yield from (leaf for each in value for leaf in values_in(each))
        case _:
            yield value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_conversation_is_one_that_teach_reads(kind):
    words = Words(VOCABULARY, seed=2)
    for _ in range(30):
        row = KINDS[kind][1](words, CHATS)
        conversation = read_conversation("here", json.loads(json.dumps(row)))
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row.get("tools", ())}
        for message in conversation.messages:
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                assert fits(call["args"], schemas[call["name"]])


def test_the_same_seed_gives_the_same_conversations():
    assert conversations(20) == conversations(20)
