"""Many clients at once, some of which leave or send nonsense: nothing is lost, leaked or starved."""

import asyncio
import json
import random
import time
from collections import defaultdict

import httpx
import pytest

from integration_tests.serve_process import PATIENCE
from integration_tests.served.conftest import KEYS
from integration_tests.served.http_clients import Answer, client, stream, whole

pytestmark = pytest.mark.slow

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "name": "s",
    "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]},
}


def chat(text, **more) -> dict:
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": 6, "temperature": 0}
    return {"model": "smol", **asked, **more}


KINDS = {
    "greedy": chat("What is the capital of Japan?"),
    "pirate": chat("Tell me about whales.", mixture={"pirate": 1}),
    "by name": chat("Tell me about whales.", model="smol:pirate=0.5,concise=0.5"),
    "sampled": chat("Tell me about whales.", temperature=1.0, seed=3),
    "tool": chat("Add 1 and 3.", tools=[TOOL], tool_choice="required", max_tokens=40),
    "schema": chat("Fine?", response_format={"type": "json_schema", "json_schema": SCHEMA}, max_tokens=12),
    "logprobs": chat("Hello", logprobs=True, top_logprobs=5),
    "traced": chat("Hello", mixture={"concise": 1}, trace=True, max_tokens=4),
}
LONG = chat("Tell me a long story.", max_tokens=900, logit_bias={"0": -100, "2": -100})
MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"\xff",
    b'{"model": "smol"}',
    b'{"model": "smol", "messages": 5}',
    b"[" * 5000,
]


async def plain(staff, body) -> dict:
    response = await staff.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def figures(staff) -> dict[str, float]:
    """The server's gauges and counters."""
    lines = (await staff.get("/metrics")).text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("eft:"))
    return {name: float(value) for name, _, value in pairs}


def held(stats) -> tuple[float, float, float]:
    """What requests hold of the engine: rows, places in the queue, memory."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return tuple(value for name in names for key, value in stats.items() if key.startswith(f"eft:{name}"))


async def until(staff, *, busy: bool) -> dict[str, float]:
    """Wait until the engine works, or until it does not; its figures then."""
    deadline = time.monotonic() + PATIENCE
    while True:
        stats = await figures(staff)
        if any(held(stats)) == busy:
            return stats
        assert time.monotonic() < deadline, f"busy={not busy} for {PATIENCE} s: {stats}"
        await asyncio.sleep(0.05)


async def ask(staff, kind, streamed) -> tuple:
    """One request: its kind, and what it was answered."""
    if kind == "text":
        body = {"model": "smol:none", "prompt": ["1, 2, 3,", "The sun"], "max_tokens": 4, "temperature": 0}
        return kind, tuple(choice["text"] for choice in (await plain(staff, body))["choices"])
    if streamed:
        answer = Answer.of_chunks(await stream(staff, KINDS[kind]))
    else:
        answer = Answer.of_whole(await whole(staff, KINDS[kind]))
    assert answer.finish_reason in {"stop", "length", "tool_calls"}
    calls = tuple((name, arguments) for name, arguments in answer.calls.values())
    return kind, (answer.content, calls, answer.usage["completion_tokens"], len(answer.trace))


async def leave(running, number) -> None:
    """A client that goes away in the middle of its answer: of a stream, or before a whole one."""
    async with client(running) as guest:
        if number % 3:
            asked = {**LONG, "stream": True}
            async with guest.stream("POST", "/v1/chat/completions", json=asked) as response:
                lines = response.aiter_lines()
                for _ in range(number % 7):
                    await anext(lines)
        else:
            asking = asyncio.create_task(guest.post("/v1/chat/completions", json=LONG))
            await asyncio.sleep(0.1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def disturb(running, done) -> int:
    """Send malformed bodies until everybody else is done; each is refused in words."""
    sent = 0
    headers = {"authorization": f"Bearer {KEYS['staff']}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=PATIENCE) as vandal:
        while not done.is_set():
            content = MALFORMED[sent % len(MALFORMED)]
            answer = await vandal.post("/v1/chat/completions", content=content)
            assert answer.status_code in {400, 422}, answer.text
            assert json.loads(answer.text)["error"]["message"]
            sent += 1
            await asyncio.sleep(0.2)
    return sent


async def test_200_requests_of_all_kinds_with_clients_that_leave_or_send_nonsense(smol_server):
    rng, done = random.Random(1), asyncio.Event()
    work = [(kind, bool(i % 2)) for i in range(10) for kind in (*KINDS, "text") for _ in range(2)]
    work += [("greedy", True)] * (200 - len(work))
    rng.shuffle(work)
    order: list[str] = []

    async def noted(name, answering):
        answer = await answering
        order.append(name)
        return answer

    async with client(smol_server) as staff:
        before = await until(staff, busy=False)
        vandal = asyncio.create_task(disturb(smol_server, done))
        early = [asyncio.create_task(noted("early", ask(staff, *each))) for each in work[:100]]
        leavers = [asyncio.create_task(leave(smol_server, number)) for number in range(30)]
        await asyncio.sleep(0.5)
        single = asyncio.create_task(noted("single", ask(staff, "greedy", streamed=False)))
        await asyncio.sleep(0.5)
        late = [asyncio.create_task(noted("late", ask(staff, *each))) for each in work[100:]]
        _, waiting = await asyncio.wait([*early, *late, single, *leavers], timeout=PATIENCE)
        assert not waiting, f"{len(waiting)} clients wait after {PATIENCE} s: {await figures(staff)}"
        answers = await asyncio.gather(*early, *late, single)
        await asyncio.gather(*leavers)
        done.set()
        assert await vandal >= 2
        after = await until(staff, busy=False)

    assert len(answers) == 201
    by_kind = defaultdict(set)
    for kind, answer in answers:
        by_kind[kind].add(answer)
    assert set(by_kind) == {*KINDS, "text"}
    assert {kind: len(said) for kind, said in by_kind.items()} == dict.fromkeys(by_kind, 1), "mixed up"
    assert held(after) == held(before) == (0, 0, 0)
    # First come, first served: who asks before the last hundred does not wait for all of them.
    assert order.index("single") < len(order) - 50


async def test_a_client_that_leaves_frees_its_row(smol_server):
    """Alone, so that the only answer that could still be decoded is the one nobody reads."""
    async with client(smol_server) as staff:
        await until(staff, busy=False)
        asked = {**LONG, "stream": True}
        async with staff.stream("POST", "/v1/chat/completions", json=asked) as response:
            lines = response.aiter_lines()
            while "content" not in await anext(lines):
                pass
            assert any(held(await figures(staff)))
        written = (await until(staff, busy=False))["eft:generation_tokens_total"]
        await asyncio.sleep(0.3)
        assert (await figures(staff))["eft:generation_tokens_total"] == written


async def test_answers_of_a_batch_begin_while_others_are_decoded(smol_server):
    """A short answer beside a long one ends first."""
    async with client(smol_server) as staff:
        ended = []

        async def noted(name, answering):
            await answering
            ended.append(name)

        long = {**LONG, "max_tokens": 120}
        tasks = [asyncio.create_task(noted("long", whole(staff, long)))]
        await until(staff, busy=True)
        tasks += [asyncio.create_task(noted("short", whole(staff, chat("Hello", max_tokens=2))))]
        await asyncio.gather(*tasks)
        assert ended == ["short", "long"]
