"""Broken servers, drawn at random: whatever they say, a call ends soon, with an answer or one of our errors.

`LANGCHAIN_EFT_FUZZ=100` draws a hundred times as many.
"""

import asyncio
import gzip
import json
import time
from contextlib import suppress

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from langchain_core.exceptions import ModelError

from langchain_eft import EFTChatModel
from langchain_eft.engine.errors import EngineError
from langchain_eft.remote import connection, eft_server, engine
from langchain_eft.remote.eft_server import EFTServer
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.registry import close_all, open_remote
from langchain_eft.remote.vllm_server import VLLMServer
from unit_tests.helpers import FUZZ
from unit_tests.remote.scripted_server import Scripted, scripted_server

SMALL = {
    connection: {
        "_LARGEST_BODY": 2**22,
        "_BODY_SECONDS": 0.5,
        "_SHORT_SECONDS": 2.0,
        "_REFUSAL_SECONDS": 0.2,
    },
    engine: {"_LINE_BYTES": 2**16, "_BYTES_PER_TOKEN": 2**14, "_REST_SECONDS": 0.2, "LARGEST_LISTING": 2**20},
    eft_server: {"LARGEST_LISTING": 2**20},
}
"""Limits that are soon reached."""


def examples(number):
    return drawn(
        max_examples=number * FUZZ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(scope="module")
def broken(served):
    """A server that says what it is told to, and is what the real one is."""
    with pytest.MonkeyPatch.context() as patch, scripted_server() as running:
        for module, limits in SMALL.items():
            for name, limit in limits.items():
                patch.setattr(module, name, limit)
        patch.setattr(connection, "_pause", lambda attempt: 0.0)
        for path in ("/v1/models", "/v1/recipe"):
            answer = httpx.get(f"{served}{path}", params={"model": "base"})
            headers = {"ETag": answer.headers["etag"]} if "etag" in answer.headers else {}
            running.paths[path] = Scripted(body=answer.content, headers=headers)
        open_remote(Endpoint(url=served))  # keeps the tokenizer
        yield running


# What is broken

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from([-1, 260, 2**32, 2**63, 2**70, 10**400, "stop", "many", "\ud800", "x" * 9999, [], {}]),
    st.lists(st.integers(-1, 300), max_size=4),
    st.just(json.loads("[" * 90 + "]" * 90)),
)


def places(value, path=()):
    """The path of every value inside a value, and of itself."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def changed(value, path, change):
    """The value with another one at a path."""
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = changed(copy[path[0]], path[1:], change)
    return copy


@st.composite
def mutations(draw, value):
    """The value with up to two changes: junk, a list of it, something twice."""
    for _ in range(draw(st.integers(0, 2))):
        junk = draw(JUNK)
        change = draw(
            st.sampled_from(
                [
                    lambda _, junk=junk: junk,
                    lambda old: [old],
                    lambda old: old * 2 if isinstance(old, list) else 0,
                ]
            )
        )
        path = draw(st.sampled_from(list(places(value))))
        value = changed(value, path, change)
    return value


def written(value) -> bytes:
    return json.dumps(value).encode()


def event_stream_of(chunks, done=1, end=b"\n\n") -> bytes:
    return b"".join(b"data: " + line + end for line in [*map(written, chunks), *[b"[DONE]"] * done])


@st.composite
def cuts(draw, content):
    """The content with bytes left out or put in."""
    start = draw(st.integers(0, len(content)))
    junk = draw(st.sampled_from([b"", b"\n", b"\0", b"\r", b"\xff", "\u2028\x85".encode(), b'"', b"[" * 999]))
    return content[:start] + junk + content[draw(st.integers(start, min(start + 40, len(content)))) :]


SHIFT = {
    "total_variation": 0.1,
    "up": {"id": 70, "token": "x", "change": 0.1},
    "down": {"id": 71, "token": "y", "change": -0.1},
}
TRACE = {
    "id": 70, "token": "x", "text": "x", "logprob": -1.0, "base": -1.0, "small": None, "from_base": SHIFT,
    "from_small": None,
    "behaviors": {"one": {**SHIFT, "weight": 1.0, "tuned": -1.0, "reference": -2.0, "contribution": 1.0}},
}  # fmt: skip
PIECE = {
    "token_ids": [70],
    "finish_reason": None,
    "logprobs": {"token_logprobs": [-1.0], "top_token_ids": [[[70, -1.0], [71, None]]]},
    "trace": [TRACE],
}
FIGURES = {"drafted": 4, "accepted": 2, "verify_passes": 2, "context_tokens": {}}
CHUNKS = [
    *(
        {"choices": [{**PIECE, "token_ids": [token], "trace": [{**TRACE, "id": token}]}]}
        for token in (70, 71, 72)
    ),
    {"choices": [{"token_ids": [], "finish_reason": "stop", "eft": FIGURES}]},
    {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}},
]
VLLM_CHUNK = {
    "choices": [
        {
            "token_ids": [70],
            "finish_reason": None,
            "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:70": -1.0}]},
        }
    ],
    "usage": {"prompt_tokens_details": {"cached_tokens": 3}},
}
ENDLESS = [b": ping\n\n", b"data: " + written(CHUNKS[0]) + b"\n\n", b"x" * 1000, b"data: {}\n\n"]
HEADERS = st.sampled_from(
    [{"Content_Type": "text/html"}, {"Content_Encoding": "gzip"}, {"Retry_After": "9" * 400},
     {"Retry_After": "0"}, {"ETag": "\u00e9"}, {"Set_Cookie": "a=b"}]
)  # fmt: skip


FAULTS = {
    "cut": {"cut": st.just(True)},
    "endless": {"endless": st.sampled_from(ENDLESS), "pause": st.sampled_from([0.0, 0.001])},
    "headers": {"headers": HEADERS},
    "status": {"status": st.sampled_from([204, 302, 400, 412, 429, 500, 503]), "headers": HEADERS},
}


@st.composite
def bodies(draw, content):
    """An answer with this content, with up to two faults."""
    answer = Scripted(body=content)
    for fault in draw(st.lists(st.sampled_from([*FAULTS, "bytes", "gzip"]), max_size=2, unique=True)):
        if fault == "bytes":
            answer.body = draw(cuts(answer.body))
        elif fault == "gzip":
            answer.body = gzip.compress(answer.body)
        else:
            vars(answer).update(draw(st.fixed_dictionaries(FAULTS[fault])))
    return answer


@st.composite
def streams(draw):
    """A stream of chunks, more or less."""
    chunks = draw(mutations(CHUNKS))
    if isinstance(chunks, list) and draw(st.integers(0, 3)) == 0:
        chunks = draw(st.permutations(chunks))
    chunks = chunks if isinstance(chunks, list) else [chunks]
    done, end = draw(st.sampled_from([1, 1, 0, 2])), draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n"]))
    return draw(bodies(event_stream_of(chunks, done, end)))


# What must come of it


async def consumed(stream):
    return [chunk async for chunk in stream]


CALLS = {
    "invoke": lambda model, **asked: model.invoke("hi", **asked),
    "ainvoke": lambda model, **asked: asyncio.run(model.ainvoke("hi", **asked)),
    "stream": lambda model, **asked: list(model.stream("hi", **asked)),
    "astream": lambda model, **asked: asyncio.run(consumed(model.astream("hi", **asked))),
}


def ends_well(model, call, **asked) -> None:
    """A call ends soon, with an answer or one of our errors, which is not long."""
    start, before = time.monotonic(), psutil.Process().memory_info().rss
    try:
        CALLS[call](model, **asked)
    except (EngineError, ModelError) as error:
        assert len(str(error)) < 10_000  # noqa: PT017
    assert time.monotonic() - start < 120
    assert psutil.Process().memory_info().rss - before < 300 * 2**20


@pytest.mark.slow
@examples(60)
@given(
    answer=streams(),
    call=st.sampled_from(list(CALLS)),
    asked=st.sampled_from([{}, {"logprobs": True, "top_logprobs": 2}, {"trace": True}, {"stop": ["x"]}]),
)
def test_broken_answers(broken, answer, call, asked):
    broken.script = [answer] * 3
    model = EFTChatModel(base_url=broken.url, max_tokens=4, max_retries=1)
    ends_well(model, call, timeout=0.5, **asked)


@pytest.mark.slow
@examples(30)
@given(data=st.data(), path=st.sampled_from(["/v1/models", "/v1/recipe"]), call=st.sampled_from(list(CALLS)))
def test_broken_descriptions(broken, data, path, call):
    whole = broken.paths[path]
    content = written(data.draw(mutations(json.loads(whole.body))))
    answer = data.draw(bodies(content))
    answer.headers = {**whole.headers, **answer.headers}
    broken.paths[path], broken.script = answer, [Scripted(body=event_stream_of(CHUNKS))] * 3
    try:
        ends_well(EFTChatModel(base_url=broken.url, max_tokens=4, max_retries=1), call, timeout=0.5)
    finally:
        broken.paths[path] = whole
        close_all()


@examples(200)
@given(data=st.data(), dialect=st.sampled_from([(EFTServer, CHUNKS[0]), (VLLMServer, VLLM_CHUNK)]))
def test_broken_events(data, dialect):
    """Without HTTP, so that many can be drawn."""
    server, chunk = dialect
    content = data.draw(st.one_of(*[mutations(chunk).map(written), cuts(written(chunk))]))
    with suppress(EngineError, ValueError):
        piece = server.read(None, content)
        assert all(0 <= token < 2**32 for token in piece.tokens)
