"""Requests for structured output: the assistant writes the free-text fields itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .tool_signatures import Tool, function_schema
from .vocabulary import NAMES, THINGS

if TYPE_CHECKING:
    import random

    from .argument_source import Value


class Topics(Protocol):
    """A seeded stream of topics."""

    random: random.Random

    def word(self) -> str:
        """Return a random topic."""
        ...


FIELD_SETS = [
    ["setup", "punchline"],
    ["question", "answer"],
    ["title", "summary"],
    ["title", "body"],
    ["title", "author", "year"],
    ["topic", "summary", "rating"],
    ["name", "description", "tags"],
    ["name", "rating"],
]
NOUN_BY_FIRST_FIELD = {
    "setup": "joke",
    "question": "quiz",
    "title": "article",
    "topic": "review",
    "name": "item",
}
FIELD_TYPES: dict[str, dict[str, Any]] = {
    "rating": {"type": "integer"},
    "year": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string"}},
}


@dataclass(frozen=True)
class StructuredRequest:
    """A request for text in given fields.

    Attributes:
        tool: The form of the answer, as a tool.
        question: What the user says.
        answer: The fields of the answer.
        parameters: The form of the answer, as a JSON schema.
    """

    tool: Tool
    question: str
    answer: dict[str, Value]
    parameters: dict[str, Any]


def random_structured_request(source: Topics) -> StructuredRequest:
    """Return a request for a joke, a quiz, an article, a review or an item."""
    r = source.random
    topic = source.word()
    texts = _texts(topic, author=r.choice(NAMES))
    fields = r.choice(FIELD_SETS)
    noun = NOUN_BY_FIRST_FIELD[fields[0]]
    answer: dict[str, Value] = {}
    properties: dict[str, Any] = {}
    for field in fields:
        answer[field] = _field_value(r, field, topic, texts)
        properties[field] = _field_schema(r, field, noun)
    title = noun.capitalize()
    name = r.choice([title, noun, f"{noun}_output", f"make_{noun}", f"{title}Schema", "Response", "Answer"])
    description = r.choice(
        [
            f"{title} to tell user.",
            f"A {noun}.",
            f"The structured {noun}.",
            "",
            f"Schema of a {noun}.",
        ]
    )
    parameters = {"properties": properties, "required": fields, "type": "object"}
    schema = function_schema(name, description, parameters)
    tool = Tool(name, schema, phrase=noun, kinds={})
    return StructuredRequest(tool, _question(r, noun, topic), answer, parameters)


def _texts(topic: str, author: str) -> dict[str, list[str]]:
    title = topic.capitalize()
    return {
        "setup": [
            f"Why did the {topic} cross the road?",
            f"What do you call a {topic} that sings?",
            f"Why was the {topic} so happy?",
            f"What did one {topic} say to the other {topic}?",
        ],
        "punchline": [
            "To get to the other side!",
            f"Because it was a good day to be a {topic}!",
            f'"You are my favourite {topic}!"',
            "It just could not stop laughing!",
        ],
        "title": [
            f"The {title}",
            f"All about {topic}",
            f"A guide to {topic}",
            f"The story of the {topic}",
        ],
        "summary": [
            f"{title} is important to many people.",
            f"A short text about {topic}.",
            f"This is about {topic} and why it matters.",
        ],
        "question": [
            f"What is {topic}?",
            f"Why do people like {topic}?",
            f"Where can you find {topic}?",
        ],
        "answer": [
            f"{title} is something that people use every day.",
            f"People like {topic} because it is useful.",
            f"You can find {topic} in many places.",
        ],
        "body": [
            f"Once upon a time there was a {topic}. Everyone loved it.",
            f"{title} has a long history. People still talk about it.",
        ],
        "topic": [topic],
        "author": [author],
        "name": [title],
        "description": [f"A {topic} that people like."],
    }


def _field_value(r: random.Random, field: str, topic: str, texts: dict[str, list[str]]) -> Value:
    # All three are drawn for every field, so that the draws do not depend on the field.
    drawn: dict[str, Value] = {
        "rating": r.randint(1, 10),
        "year": r.randint(1900, 2030),
        "tags": [topic, r.choice(THINGS)],
    }
    return drawn[field] if field in drawn else r.choice(texts[field])


def _field_schema(r: random.Random, field: str, noun: str) -> dict[str, Any]:
    schema = FIELD_TYPES.get(field, {"type": "string"})
    if r.random() >= 0.6:
        return schema
    description = r.choice([f"the {field} of the {noun}", f"{field} for the {noun}", f"The {field}"])
    return {"description": description, **schema}


def _question(r: random.Random, noun: str, topic: str) -> str:
    return r.choice(
        [
            f"Tell me a {noun} about {topic}.",
            f"Tell me a {noun} about {topic}s.",
            f"Write a {noun} about {topic}.",
            f"Give me a {noun} on {topic}.",
            f"Make a {noun} about {topic}, please.",
            f"{noun} about {topic}",
        ]
    )
