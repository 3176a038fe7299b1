"""Tools: a name, a description and a JSON schema of the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.smol.tasks.tools.everyday import ADJECTIVES, ARGUMENT_NAMES, NOUNS, VERBS
from training.smol.tasks.tools.values import EVERYDAY_ARGUMENTS, Kind, Value, draw_kind
from training.smol.tasks.tools.words import RESERVED, Part, Words, split_words

DESCRIPTIONS = (
    "{Phrase}.",
    "Applies {phrase} to the input.",
    "Use this to {phrase}.",
    "Returns the {phrase}",
    "",
    "{Phrase} now.",
    "A tool for {phrase}.",
    "Calls the service that can {phrase}.",
    "{Phrase} and return the result.",
    "Helps with {phrase}: {word} and {word}.",
    "Useful when the user wants to {phrase}.",
    "{Phrase}. Needs {argument}.",
    "Function {name}.",
    "{Word} {word} of the {word}.",
    "This tool can {phrase} in the {word} system.",
)
ARGUMENT_DESCRIPTIONS = (
    "The {argument}.",
    "{argument} to use",
    "the {argument} of the {word}",
    "What to take as {argument}.",
    "{Argument} ({word}).",
    "{Word} {word}",
    "required {argument}",
    "A {word}.",
    "The {word}'s {argument}, such as {word}.",
)


@dataclass(frozen=True)
class Tool:
    """A tool that an assistant can call.

    Attributes:
        name: The name to call it by.
        phrase: The name as words, for requests in prose.
        schema: What the assistant is shown, in the function-calling form.
        kinds: The kind of each argument that a call gives, by name.
        left_out: Optional arguments that calls need not give.
    """

    name: str
    phrase: str
    schema: dict[str, Any]
    kinds: dict[str, Kind]
    left_out: dict[str, Kind]

    def arguments(self, words: Words) -> dict[str, Value]:
        """Arguments for one call; an optional one is given now and then."""
        given = {name: kind.draw(words) for name, kind in self.kinds.items()}
        for name, kind in self.left_out.items():
            if words.random.random() < 0.25:
                given[name] = kind.draw(words)
        return given

    def kind(self, argument: str) -> Kind:
        """The kind of an argument."""
        return self.kinds.get(argument) or self.left_out[argument]


def random_tool(words: Words, like: Tool | None = None) -> Tool:
    """A tool with up to four arguments.

    Args:
        words: Where names and kinds come from.
        like: A tool that the new one resembles, so that only careful reading tells them apart.
    """
    r = words.random
    everyday = words.part is Part.TRAINING and r.random() < 0.4
    parts = _similar_parts(words, like) if like is not None else _name_parts(words, everyday=everyday)
    name = _styled(words, parts)
    if everyday:
        kinds = dict(r.choices(EVERYDAY_ARGUMENTS, k=r.choice((0, 1, 1, 1, 2, 2))))
    else:
        count = r.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4))
        kinds = {argument_name(words): draw_kind(words) for _ in range(count)}
    if like is not None and like.kinds and r.random() < 0.4:
        kinds = dict(like.kinds)
    left_out = {argument_name(words): draw_kind(words, nested=False)} if r.random() < 0.15 else {}
    left_out = {argument: kind for argument, kind in left_out.items() if argument not in kinds}
    phrase = " ".join(parts)
    return Tool(name, phrase, _schema(words, name, phrase, kinds, left_out), kinds, left_out)


def argument_name(words: Words) -> str:
    """A name of an argument: a common one, or any words in any style."""
    r = words.random
    if words.part is Part.TRAINING and r.random() < 0.35:
        return r.choice(ARGUMENT_NAMES)
    parts = words.words(1, r.choice((1, 1, 1, 2, 2, 3)))
    if r.random() < 0.1:
        parts.insert(r.choice((0, len(parts))), r.choice(("id", "max", "min", "is", "num", "new")))
    name = _camel(parts) if r.random() < 0.15 else "_".join(parts)
    return argument_name(words) if name in RESERVED else name


def _name_parts(words: Words, *, everyday: bool) -> list[str]:
    r = words.random
    verb = r.choice(VERBS) if everyday or (words.part is Part.TRAINING and r.random() < 0.5) else words.word()
    noun, adjective = (r.choice(NOUNS), r.choice(ADJECTIVES)) if everyday else (words.word(), words.word())
    match r.choices(
        ("verb noun", "verb adjective noun", "noun verb", "nouns", "noun", "long"), (10, 4, 2, 3, 1, 1)
    )[0]:
        case "verb noun":
            parts = [verb, noun]
        case "verb adjective noun":
            parts = [verb, adjective, noun]
        case "noun verb":
            parts = [noun, verb]
        case "nouns":
            parts = [adjective, noun, *words.words(0, 1)]
        case "noun":
            parts = [noun]
        case _:
            parts = [verb, *words.words(3, 4)]
    return [part for each in parts for part in each.split("_")]


def _similar_parts(words: Words, like: Tool) -> list[str]:
    parts = like.phrase.split()
    i = words.random.randrange(len(parts))
    return [*parts[:i], words.word(), *parts[i + 1 :]]


def _styled(words: Words, parts: list[str]) -> str:
    r = words.random
    style = r.choices(("snake", "camel", "pascal", "kebab", "dense"), (74, 9, 9, 5, 3))[0]
    end = r.choice(("_tool", "_v2", "_api", "_fn", "_2", "_no_args")) if r.random() < 0.06 else ""
    match style:
        case "camel":
            return _camel(parts)
        case "pascal":
            return "".join(part.capitalize() for part in parts)
        case "kebab":
            return "-".join(parts)
        case "dense":
            dense = "".join(parts)
            return "_".join(parts) if dense in RESERVED else dense
        case _:
            return "_".join(parts) + end


def _camel(parts: list[str]) -> str:
    return parts[0] + "".join(part.capitalize() for part in parts[1:])


def _schema(
    words: Words, name: str, phrase: str, kinds: Mapping[str, Kind], left_out: Mapping[str, Kind]
) -> dict[str, Any]:
    r = words.random
    described = r.random() < 0.3
    properties = {argument: _property(words, argument, kind, described) for argument, kind in kinds.items()}
    for argument, kind in left_out.items():
        shape = _property(words, argument, kind, described)
        if r.random() < 0.5:
            default = kind.draw(words)
            properties[argument] = {"default": default, **shape}
        else:
            properties[argument] = {"anyOf": [shape, {"type": "null"}], "default": None}
    required = {"required": list(kinds)} if kinds else {}
    parameters = r.choice(
        (
            {"type": "object", "properties": properties, **required},
            {"properties": properties, **required, "type": "object"},
            {"properties": properties, "type": "object", **required},
        )
    )
    if r.random() < 0.06:
        parameters = {**parameters, "additionalProperties": False}
    template = r.choice(DESCRIPTIONS)
    description = _filled(words, template, phrase=phrase, name=name, argument=next(iter(kinds), "nothing"))
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def _property(words: Words, argument: str, kind: Kind, described: bool) -> dict[str, Any]:  # noqa: FBT001
    if not described:
        return dict(kind.schema)
    spoken = " ".join(split_words(argument))
    description = _filled(words, words.random.choice(ARGUMENT_DESCRIPTIONS), argument=spoken)
    return {"description": description, **kind.schema}


def _filled(words: Words, template: str, **given: str) -> str:
    """A template with its gaps filled; each gap for a word gets another word."""
    for gap, draw in (("{word}", words.word), ("{Word}", lambda: words.word().capitalize())):
        while gap in template:
            template = template.replace(gap, draw(), 1)
    capitals = {key.capitalize(): value.capitalize() for key, value in given.items()}
    return template.format(**given, **capitals)
