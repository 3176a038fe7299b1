"""Grammars and schemas of every shape and size, each compiled and followed for some tokens or refused.

`python -m unit_tests.engine.decoding.grammar_shapes SEED COUNT` says each before it tries it: if the process
ends there, the last line is what ended it.
"""

import json
import random
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path

import torch

from langchain_eft.chat.grammars import schema_grammar
from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.errors import RequestError
from unit_tests import tiny

say = partial(print, flush=True)

STACK_BYTES = 2 * 2**20
"""The least that some platform gives a thread."""

SECONDS = 30
"""Far more than any of them may take."""


def chain(size, body, end, *, name="r"):
    """Definitions of which each has the next one in its body."""
    lines = [f"{name}{i}: {body.format(next=f'{name}{i + 1}', any=f'{name}{i // 2}')}" for i in range(size)]
    return "\n".join([f"start: {name}0", *lines, f"{name}{size}: {end}"])


def referring(count, **keywords):
    """A schema of objects, each of which holds the next one."""
    objects = {
        f"k{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/k{i + 1}"}}, **keywords}
        for i in range(count)
    }
    return {"$ref": "#/$defs/k0", "$defs": {**objects, f"k{count}": {"type": "boolean"}}}


RULES = (
    "{next}",
    '{next} "b"',
    '("x" {next})?',
    "{next} {next}",
    '{next} "x" | {next} "y"',
    '"x" {any} | {next}',
    "{next}{{2}}",
    "{next}{{0,9}} {next}",
    '((((((({next} "b" | "c")? "d")? "e")? "f")? "g")? "h")? "i")?',
)
TERMINALS = ("{next}", '{next} "b"', "{next} {next}", "({next} | /[a-f]/)+", "{next}{{3}}")
JOINED = (
    "/(.|\\n)*w{i}(.|\\n)*/",
    "/([a-{c}]x{i}|[b-z].*y{i})*/",
    "/(.*\\p{{L}}.{{{i}}}|\\w.*)*/",
    "~/[a-{c}]*/",
)
BODIES = (
    lambda ref: ref,
    lambda ref: {
        "type": "object",
        "properties": {"a": ref},
        "required": ["a"],
        "additionalProperties": False,
    },
    lambda ref: {"type": "object", "properties": {"a": ref, "b": ref}, "required": ["a", "b"]},
    lambda ref: {"type": "array", "items": ref, "minItems": 3},
    lambda ref: {"anyOf": [ref, {"type": "null"}, {"type": "object", "properties": {"b": ref}}]},
    lambda ref: {"oneOf": [ref, ref]},
    lambda ref: {"allOf": [ref, {"type": "object", "properties": {"c": {"pattern": "x"}}}, ref]},
    lambda ref: {"type": "array", "prefixItems": [ref, ref], "items": False},
    lambda ref: {"type": "object", "patternProperties": {"^a": ref}, "additionalProperties": False},
)


def linked(size, body, chance):
    """Definitions of which each refers to the next one, and sometimes back."""
    named = {
        f"k{i}": body({"$ref": f"#/$defs/k{i + 1 if chance.random() < 0.95 else i // 2}"})
        for i in range(size)
    }
    return {"$ref": "#/$defs/k0", "$defs": {**named, f"k{size}": {"type": "boolean"}}}


def nested(size, body):
    """One schema inside another."""
    schema = {"type": "boolean"}
    for _ in range(size):
        schema = body(schema) if len(json.dumps(schema)) < 2**20 else schema
    return schema


def tagged(i):
    return {
        "type": "object",
        "properties": {"k": {"const": f"k{i}"}, "v": {"type": "string"}},
        "required": ["k"],
    }


WIDE = {
    "anyOf": lambda n: {"anyOf": [tagged(i) for i in range(n)]},
    "oneOf": lambda n: {"oneOf": [tagged(i) for i in range(n)]},
    "untold": lambda n: {"oneOf": [{**tagged(i), "required": []} for i in range(n)]},
    "enum": lambda n: {"enum": [f"w{i}" for i in range(n)]},
    "objects": lambda n: {"enum": [{"a": i} for i in range(n)]},
    "properties": lambda n: {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}},
    "patterns": lambda n: {"type": "object", "patternProperties": {f"^p{i}_": {} for i in range(n)}},
    "allOf": lambda n: {"allOf": [{"type": "string", "pattern": f"w{i}"} for i in range(n)]},
    "choices": lambda n: {"allOf": [{"anyOf": [tagged(i), tagged(-i)]} for i in range(n)]},
    "long": lambda n: {"const": "xyz " * n},
    "many": lambda n: {"type": "array", "items": {"const": "xyz " * 500}, "minItems": n},
    "repeated": lambda n: {"type": "string", "pattern": f"^((ab){{{n}}}c){{{n}}}$"},
    "least": lambda n: {"type": "string", "pattern": "^(a|bb)*c$", "minLength": n, "maxLength": 2 * n},
    "numbers": lambda n: (
        tagged(0) | {"properties": {f"p{i}": {"type": "number", "minimum": i} for i in range(n)}}
    ),
    "unused": lambda n: {"type": "string", "$defs": {f"k{i}": tagged(i) for i in range(n)}},
}


def anything(chance):
    """The name of a shape with its size, and a grammar or schema of it."""
    size = int(2 ** chance.uniform(0, 12.5))
    kind = chance.choice(("rules", "terminals", "joined", "alternatives", "linked", "nested", "wide", "wide"))
    if kind == "rules":
        body = chance.choice(RULES)
        return f"{kind} {body} {size}", chain(size, body, '"a"')
    if kind == "terminals":
        body = chance.choice(TERMINALS)
        return f"{kind} {body} {size}", chain(size, body, chance.choice(['"a"', "/[a-z]+/"]), name="R")
    if kind == "joined":
        body, count = chance.choice(JOINED), size % 24 + 1
        parts = [body.format(i=i, c="cdefghijklmnopqrstuvwxyz"[i % 24]) for i in range(count)]
        return f"{kind} {body} {count}", "start: A\nA: " + " & ".join(parts)
    if kind == "alternatives":
        return f"{kind} {size}", "start: " + " | ".join(f'"w{i}" r{i % 9}' for i in range(size)) + "".join(
            f'\nr{i}: "x" r{i}? "y"' for i in range(9)
        )
    if kind == "linked":
        number = chance.randrange(len(BODIES))
        return f"{kind} {number} {size}", linked(size, BODIES[number], chance)
    if kind == "nested":
        number, depth = chance.randrange(len(BODIES)), size % 300
        return f"{kind} {number} {depth}", nested(depth, BODIES[number])
    name = chance.choice([*WIDE])
    return f"{kind} {name} {size}", WIDE[name](size)


def follow(grammars, text, chance):
    """Compile a grammar, and draw some tokens that it allows."""
    grammar = grammars.compile(text)
    for _ in range(6):
        if grammar.complete:
            break
        grammar.forced()
        choices = torch.nonzero(grammar.mask()).flatten().tolist()
        grammar.consume(chance.choice(choices))


def main(seed, count):
    tokenizer = tiny.tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), {tokenizer.eos_token_id})
    for number in range(seed, seed + count):
        chance = random.Random(number)
        name, shape = anything(chance)
        say(f"{number}: {name} ...")
        began = time.perf_counter()
        try:
            follow(grammars, shape if isinstance(shape, str) else schema_grammar(shape), chance)
            result = "followed"
        except RequestError as error:
            result = f"refused: {str(error)[-200:]!r}"
        seconds = time.perf_counter() - began
        say(f"{number}: {name} {seconds:.2f} s, {result}")
        assert seconds < SECONDS
    # Not `getrusage`: its peak includes that of the process which started this one.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    say(f"Peak memory: {int(peak[1]) // 1024} MiB")
    say("All were compiled or refused.")


if __name__ == "__main__":
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=main, args=(int(sys.argv[1]), int(sys.argv[2])))
    thread.start()
    thread.join()
