"""The threads of callers: none takes those of the others, and what a client has left is not worked on."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from langchain_eft.server.access.keys import Caller
from langchain_eft.server.caller_threads import CallerThreads
from langchain_eft.server.errors import HTTPError
from unit_tests.helpers import await_until


class Asked:
    """A request of a caller, who leaves when told to."""

    def __init__(self, name):
        self.state, self.client, self._left = SimpleNamespace(caller=Caller(name)), None, asyncio.Event()

    async def receive(self):
        await self._left.wait()
        return {"type": "http.disconnect"}

    def leave(self):
        self._left.set()


@pytest.fixture
def threads():
    threads = CallerThreads()
    yield threads
    threads.close()


async def test_a_caller_with_much_work_does_not_take_the_threads_of_others(threads):
    released, begun = threading.Event(), []

    def wait(number):
        begun.append(number)
        released.wait(60)

    greedy = [asyncio.create_task(threads.run(Asked("greedy"), wait, number)) for number in range(20)]
    for number in range(5):
        assert await asyncio.wait_for(threads.run(Asked("other"), lambda number=number: number), 60) == number
    assert sorted(begun) == [0, 1]
    released.set()
    await asyncio.gather(*greedy)
    assert sorted(begun) == list(range(20))


async def test_work_that_has_not_begun_is_dropped_when_its_client_leaves(threads):
    released, begun = threading.Event(), []

    def wait(number):
        begun.append(number)
        released.wait(60)

    asked = [Asked("a") for _ in range(4)]
    working = [asyncio.create_task(threads.run(each, wait, number)) for number, each in enumerate(asked)]
    await await_until(lambda: len(begun) == 2)
    for each in asked[:3]:  # two of them have begun, and keep their threads until they end
        each.leave()
    left = await asyncio.gather(*working[:3], return_exceptions=True)
    assert [error.status for error in left if isinstance(error, HTTPError)] == [499] * 3
    assert sorted(begun) == [0, 1]
    released.set()
    await working[3]
    assert sorted(begun) == [0, 1, 3]
