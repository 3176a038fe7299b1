"""Alternatives that exclude each other are enforced as a free choice; others stay as they are."""

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from langchain_eft.chat.one_of import exclusive_as_any


def closed(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("choices", "exclusive"),
    [
        ([{"type": "string"}, {"type": "integer"}, {"type": "null"}], True),
        ([{"type": "number"}, {"type": "integer"}], False),
        ([{"const": 1}, {"enum": [2, "1"]}], True),
        ([{"const": 1}, {"enum": [1, 2]}], False),
        ([{"enum": [{"a": 1, "b": 2}]}, {"const": {"b": 2, "a": 1}}], False),
        ([closed(a={}), closed(b={})], True),
        ([closed(a={}), {**closed(b={}), "additionalProperties": True}], True),
        ([{**closed(**{name: {}}), "additionalProperties": True} for name in "ab"], False),
        ([{**closed(**{name: {}}), "patternProperties": {"": {}}} for name in "ab"], False),
        ([closed(a={"const": 1}), {"type": "object", "properties": {"a": {"const": 2}}}], True),
        ([{"type": "object", "properties": {"a": {"const": n}}} for n in (1, 2)], False),
        ([{"properties": {"a": {"const": n}}, "required": ["a"]} for n in (1, 2)], False),
        ([{"$ref": "#/$defs/S"}, {"$ref": "#/$defs/T"}], True),
        ([{"$ref": "#/$defs/S"}, {"type": "string"}], False),
        ([True, {"type": "string"}], False),
        ([False, {"type": "string"}], True),
    ],
)
def test_only_what_excludes_each_other_becomes_a_free_choice(choices, exclusive):
    schema = {
        "properties": {"x": {"oneOf": choices}},
        "$defs": {"S": {"$ref": "#/$defs/string"}, "string": {"type": "string"}, "T": {"type": "array"}},
    }
    part = exclusive_as_any(schema)["properties"]["x"]
    assert part == {"anyOf" if exclusive else "oneOf": choices}


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Pet(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


def test_the_alternatives_of_a_discriminated_union_have_to_say_their_tag():
    schema = Pet.model_json_schema()
    changed = exclusive_as_any(schema)
    assert set(changed["properties"]["pet"]) == {"anyOf", "title"}
    assert [changed["$defs"][name]["required"] for name in ("Cat", "Dog")] == [["kind"], ["kind"]]
    assert "required" not in schema["$defs"]["Cat"]
