"""No grammar ends the process or stops it: what the compiler cannot bound is refused before it."""

import json
import os
import subprocess
import sys
import threading

import pytest

from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.errors import RequestError
from unit_tests import tiny
from unit_tests.engine.decoding.grammar_shapes import STACK_BYTES, chain, referring
from unit_tests.helpers import FUZZ


@pytest.fixture(scope="module")
def grammars():
    tokenizer = tiny.tokenizer()
    return Grammars(tokenizer, len(tokenizer), {tokenizer.eos_token_id})


def embedded(schema):
    return f"start: %json {json.dumps(schema)}"


def anchored(count):
    """As `referring`, by names instead of places."""
    text = embedded(referring(count))
    for i in range(count + 1):
        text = text.replace(f'"#/$defs/k{i}"', f'"#k{i}"').replace(
            f'"k{i}": {{', f'"k{i}": {{"$anchor": "k{i}", '
        )
    return text


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (chain(3000, "{next}", '"a"'), "3002 levels deep, and 400 are allowed"),
        (chain(5000, "{next}", '"a"', name="R"), "5002 levels"),
        (chain(100, '(((({next}?)? "x")?)? "y")?', '"a"'), "levels"),
        ("start: r0\n" + "\n".join(f"r{i}: r{i * 7 % 3000} r{i + 1}" for i in range(3000)), "levels"),
        (
            embedded(
                {
                    "$ref": "#/$defs/k0",
                    "$defs": {f"k{i}": {"$ref": f"#/$defs/k{i + 1}"} for i in range(3000)} | {"k3000": {}},
                }
            ),
            "levels",
        ),
        (embedded(referring(1000)), "4004 levels"),
        (embedded(referring(1000)).replace("#/$defs/k", "json-schema:///#/$defs/k"), "leads nowhere"),
        (anchored(1000), "anchor"),
        (
            embedded({"allOf": [{"type": "string", "pattern": f"w{i}"} for i in range(30)]}),
            "multiply to 1e\\+28",
        ),
        ("start: A\nA: " + " & ".join(f"/(.|\\n)*w{i}(.|\\n)*/" for i in range(20)), "multiply"),
        (
            embedded({"type": "object", "patternProperties": {f"^p{i}_": {} for i in range(400)}}),
            "400 patterns",
        ),
        (embedded({"anyOf": [{"const": i} for i in range(4000)]}), "`anyOf` has 4000 members"),
        (f'start: "{"a" * 2**20}"', "1048585 bytes are too many"),
        ('start: %lark { start: "a" }', "Line 1 cannot be read"),
        ("", "does not compile"),
    ],
)
def test_what_would_end_or_stop_the_process_is_refused(grammars, grammar, reason):
    with pytest.raises(RequestError, match=reason) as refused:
        grammars.compile(grammar)
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize(
    "grammar",
    [
        chain(390, "{next}", '"a"'),
        chain(390, "{next}", '"a"', name="R"),
        chain(60, '((({next} "b" | "c")? "d")? "e")?', '"a"'),
        embedded(referring(97)),
        embedded(referring(97, patternProperties={"^b": {"type": "string"}}, additionalProperties=False)),
    ],
)
def test_what_is_at_the_limits_compiles_in_the_smallest_stack(grammars, grammar):
    previous = threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=grammars.compile, args=[grammar])
    threading.stack_size(previous)
    thread.start()
    thread.join()


def test_texts_patterns_and_comments_define_nothing(grammars):
    text = '"((((" /a\\/: b: \\)/ // c: d: (('
    rules = [f'r{i}: {text}\n  | "x" r{i}? # e: ((\n' for i in range(150)]
    grammar = grammars.compile("start: " + " | ".join(f"r{i}" for i in range(150)) + "\n" + "".join(rules))
    assert not grammar.complete


def test_many_short_definitions_are_no_chain(grammars):
    grammars.compile(
        "start: " + " | ".join(f"r{i}" for i in range(1900)) + "".join(f'\nr{i}: "w{i}"' for i in range(1900))
    )


@pytest.mark.parametrize(
    "long",
    [
        f'start: a{{1000}}\na: "{"xyz " * 2000}"',
        chain(20, "{next} {next}", '"xyz "'),
        chain(20, "{next} {next}", '"xyz "', name="R"),
        "start: /(xyz ){100000}/",
        embedded(
            {
                "x-guidance": {"whitespace_flexible": False},
                "type": "array",
                "minItems": 1000,
                "items": {"const": "xyz " * 2000},
            }
        ),
        'start: a\na: "xyz " a',
    ],
)
def test_long_texts_without_a_choice_are_not_looked_ahead_at_each_token(grammars, long):
    assert grammars.compile('start: "xyz " "xyz "').forced()
    grammar = grammars.compile(long)
    assert not grammar.forced()
    assert grammar.mask().sum() == 1


@pytest.mark.slow
def test_every_shape_is_compiled_or_refused():
    """In a process of its own, in a thread with the smallest stack."""
    seed = int.from_bytes(os.urandom(4)) if FUZZ > 1 else 0
    command = [
        sys.executable,
        "-m",
        "unit_tests.engine.decoding.grammar_shapes",
        str(seed),
        str(20 * FUZZ),
    ]
    limit = 60 + 60 * FUZZ
    tried = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603
    assert tried.returncode == 0, (tried.returncode, tried.stdout[-500:], tried.stderr[-2000:])
    assert tried.stdout.endswith("All were compiled or refused.\n"), (
        tried.stdout[-500:],
        tried.stderr[-2000:],
    )
    peak = int(tried.stdout.rpartition("Peak memory: ")[2].split()[0])
    assert peak < 3000
