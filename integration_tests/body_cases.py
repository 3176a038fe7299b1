"""Bodies by size: each part of each route's model, grown to many entries, others as small as they can be.

They are made from the models' JSON schemas, so that a new field is covered by itself.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from langchain_eft.server import routes

WRONG = {"?": [1]}
"""What fits no field."""

MODEL = "base"

BASES = {
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/completions": {"model": MODEL, "prompt": "a", "max_tokens": 1},
    "/v1/rewards": {"model": MODEL, "behavior": "one", "prompt": [5], "answers": [[5]]},
    "/v1/logprobs": {"model": MODEL, "given": [{"prompt": [5], "answers": [[5]]}]},
    "/v1/systemone": {"model": MODEL, "state": "a", "questions": {"q": {"type": "noul"}}},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [5]},
}
"""A body of each route that is served, so that the work behind it is reached."""


def models() -> dict[str, type]:
    """The model of each route's body, by path."""
    modules = [import_module(f"{routes.__name__}.{each.name}") for each in iter_modules(routes.__path__)]
    found = [route for module in modules for route in module.router.routes if "POST" in route.methods]
    return {route.path: route.body_field.field_info.annotation for route in found}


def grown_bodies(path: str, model: type, count: int) -> Iterator[tuple[str, bytes]]:
    """Bodies for a route in which one part has `count` entries or characters, each with its name."""
    schema = model.model_json_schema()
    base = BASES[path] if path in BASES else _smallest(schema, schema)
    for name, field in schema["properties"].items():
        for where, value in _grown(field, schema, count, name):
            if name == "messages" and "prompt" in base:
                body = {key: part for key, part in base.items() if key != "prompt"} | {name: value}
            else:
                body = {**base, name: value}
            yield f"{path} {where} x {count}", json.dumps(body).encode()
    yield f"{path} unknown x {count}", json.dumps({**base, **_keys(count, 1)}).encode()
    yield f"{path} list x {count}", json.dumps([WRONG] * count).encode()
    for name, value in base.items():
        if isinstance(value, str):
            body = json.dumps({**base, name: 0}).replace(f'"{name}": 0', f'"{name}": {"9" * count}')
            yield f"{path} {name} digits x {count}", body.encode()


def _keys(count, value):
    return {f"x{number}": value for number in range(count)}


def _resolved(schema, root):
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _smallest(schema, root):
    """The smallest value that fits a schema."""
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        return _smallest(schema["anyOf"][0], root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    match schema.get("type"):
        case "string":
            return "a"
        case "integer" | "number":
            return 5
        case "boolean":
            return False
        case "array":
            return [_smallest(schema["items"], root)] * schema.get("minItems", 0)
        case "object":
            required = schema.get("required", ())
            return {name: _smallest(schema["properties"][name], root) for name in required}
    return 5


def _grown(schema, root, count, where, depth=4):
    """Values of a schema in which one part has `count` entries, and where it is."""
    schema = _resolved(schema, root)
    if depth == 0:
        return
    for option in schema.get("anyOf", ()):
        yield from _grown(option, root, count, where, depth)
    match schema.get("type"):
        case "string" if "enum" not in schema and "const" not in schema:
            yield f"{where} letters", "a" * count
            yield f"{where} emoji", "\N{ROCKET}" * count
        case "array":
            items = schema["items"]
            yield f"{where}[]", [_smallest(items, root)] * count
            yield f"{where}[] empty", [[]] * count
            yield f"{where}[] wrong", [WRONG] * count
            for inner, value in _grown(items, root, count, f"{where}[0]", depth - 1):
                yield inner, [value]
        case "object" if "properties" in schema:
            smallest = _smallest(schema, root)
            for name, part in schema["properties"].items():
                for inner, value in _grown(part, root, count, f"{where}.{name}", depth - 1):
                    yield inner, {**smallest, name: value}
            yield f"{where} unknown", {**smallest, **_keys(count, 1)}
        case "object":
            values = schema.get("additionalProperties") or {}
            values = values if isinstance(values, dict) else {}
            yield f"{where}{{}}", {str(number): _smallest(values, root) for number in range(count)}
            yield f"{where}{{}} wrong", _keys(count, WRONG)
            yield f"{where} key", {"k" * count: _smallest(values, root)}
            for inner, value in _grown(values, root, count, f"{where}{{0}}", depth - 1):
                yield inner, {"5": value}
        case None if "anyOf" not in schema and "const" not in schema and "enum" not in schema:
            yield f"{where} text", "a" * count
            yield f"{where} numbers", [5] * count
            yield f"{where} objects", [WRONG] * count
