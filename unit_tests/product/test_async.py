"""Many streams on one event loop: nothing blocks it, all decode together, and cancelling frees rows."""

import asyncio
import time
from contextlib import aclosing

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool

from langchain_eft import EFTLLM, EFTChatModel, EFTRewardScorer
from unit_tests.helpers import PATIENCE, wait_until, watched_rounds

NO_END = {"logit_bias": {0: -100.0}}


@tool
def wash(twice: bool) -> str:
    """Wash something."""
    return "clean"


@pytest.fixture
def llm(tool_settings):
    llm = EFTChatModel(**tool_settings)
    llm.engine.stats()  # loaded before anything is measured
    return llm


async def turns_during(work) -> int:
    """How often the event loop got to run something else, a millisecond apart or more, while `work` ran."""
    turns = 0

    async def beat():
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    heart = asyncio.create_task(beat())
    await work
    heart.cancel()
    return turns


async def drained(stream) -> int:
    return len([chunk async for chunk in stream])


@pytest.mark.slow
async def test_a_hundred_streams_do_not_block_the_event_loop(llm):
    streams = [llm.astream(f"question {i}", max_tokens=12, **NO_END) for i in range(100)]
    turns = await turns_during(asyncio.gather(*(drained(stream) for stream in streams)))
    # Hundreds; a loop that waited for rounds would have one in each of the ninety or so, or none at all.
    assert turns > 150


async def test_no_call_blocks_the_event_loop(llm, tool_settings):
    """Blockbuster raises wherever something reads a file, waits for a lock or sleeps on the loop."""
    forced = llm.bind_tools([wash], tool_choice="any")
    scorer = EFTRewardScorer(llm, "one")
    completion = EFTLLM(**tool_settings)
    with blockbuster_ctx() as guard:
        assert isinstance(guard, BlockBuster)
        with pytest.raises(Exception, match="Blocking call"):
            time.sleep(0.01)  # the guard is on  # noqa: ASYNC251
        await asyncio.gather(*(drained(llm.astream("hi", max_tokens=8)) for _ in range(20)))
        assert (await forced.ainvoke("hi")).tool_calls
        assert len(await llm.abatch(["a", "b"], max_tokens=4)) == 2
        assert len((await llm.agenerate([[HumanMessage("hi")]], n=3, max_tokens=4)).generations[0]) == 3
        assert await completion.ainvoke("hi", max_tokens=4, **NO_END)
        assert len(await scorer.ainvoke({"prompt": "x", "answers": ["y", "z"]})) == 2
        assert llm.profile["max_input_tokens"] == 1024
        rebuilt = EFTChatModel(**tool_settings)
        assert await rebuilt.ainvoke("hi", max_tokens=4)


async def until_idle(engine) -> int:
    """Tokens that were generated until no request ran any more."""
    before = engine.stats().generated_tokens
    deadline = time.monotonic() + PATIENCE
    while engine.stats().running:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    return engine.stats().generated_tokens - before


@pytest.mark.parametrize("way", ["close", "cancel stream", "cancel invoke", "cancel n"])
async def test_whoever_leaves_frees_the_row_at_the_next_round(llm, way):
    engine, long = llm.engine, {"max_tokens": 900, "speculation": "off", **NO_END}
    if way == "close":
        async with aclosing(llm.astream("hi", **long)) as stream:
            await anext(stream)
    else:
        calls = {
            "cancel stream": lambda: drained(llm.astream("hi", **long)),
            "cancel invoke": lambda: llm.ainvoke("hi", **long),
            "cancel n": lambda: llm.agenerate([[HumanMessage("hi")]], **long, n=3),
        }
        task = asyncio.create_task(calls[way]())
        rows = 3 if way == "cancel n" else 1
        await asyncio.to_thread(wait_until, lambda: engine.stats().running == rows)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # At most the round under way and the one planned already: a token each for up to three rows.
    assert await until_idle(engine) <= 6
    assert engine.stats().running == 0


@pytest.mark.slow
async def test_an_accepted_burst_is_one_chunk(llm):
    steps = []

    def count(rows, run):
        result = run()
        steps.extend(len(outcome.tokens) for outcome in result.outcomes.values())
        return result

    with watched_rounds(count):
        chunks = [c async for c in llm.astream("hi", max_tokens=60, speculation=4, **NO_END)]
    assert max(steps) > 1
    texts = [chunk for chunk in chunks if chunk.content]
    # One chunk a round at the most (one that ends inside a character shows nothing yet), and the last one.
    assert len(texts) <= len(steps)
    assert len(chunks) <= len(steps) + 1
    assert sum(steps) >= 60


@pytest.mark.slow
def test_parallel_branches_over_four_mixtures_are_one_batch(llm):
    engine, seen = llm.engine, []
    mixtures = {"base": {}, "one": {"one": 1.0}, "two": {"two": 1.0}, "both": {"one": 0.5, "two": 0.5}}
    long = {"max_tokens": 40, "speculation": "off", **NO_END}

    branches = {name: llm.bind(mixture=mixture, **long) for name, mixture in mixtures.items()}
    with watched_rounds(lambda rows, run: seen.append(engine.stats().running) or run()):
        together = RunnableParallel(branches).invoke("Tell me.", {"max_concurrency": 4})
    assert max(seen) == 4
    assert len(seen) < 80  # rounds; one after the other they take 160
    alone = {name: llm.invoke("Tell me.", mixture=mixture, **long) for name, mixture in mixtures.items()}
    assert {k: m.content for k, m in together.items()} == {k: m.content for k, m in alone.items()}


@pytest.mark.slow
async def test_async_callbacks_and_events_see_every_token_once(llm):
    class Tokens(AsyncCallbackHandler):
        text = ""

        async def on_llm_new_token(self, token, *, chunk=None, **kwargs):
            assert chunk.text == token
            self.text += token

    expected = llm.invoke("hi", **NO_END).content
    handler = Tokens()
    streamed = [c.content async for c in llm.astream("hi", config={"callbacks": [handler]}, **NO_END)]
    assert handler.text == "".join(streamed) == expected
    events = [e async for e in llm.astream_events("hi", version="v2", **NO_END)]
    texts = [e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(texts) == expected
