"""Answers that are asked for at once, and waited for one by one."""

import asyncio
import threading
from collections.abc import Mapping

from integration_tests.serve_process import PATIENCE


class Asked(Mapping):
    """What each of many coroutines returns. Looking at one waits for it alone, and raises what it raised.

    So a slow machine spends its time on many tests instead of in one fixture, and a late answer is one
    failure.

    Args:
        ask: Makes the coroutine of a key.
        keys: All keys.
    """

    def __init__(self, ask, keys):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._answers = {key: asyncio.run_coroutine_threadsafe(ask(key), self._loop) for key in keys}

    def __getitem__(self, key):
        try:
            return self._answers[key].result(PATIENCE)
        except TimeoutError:
            done = sum(answer.done() for answer in self._answers.values())
            raise AssertionError(
                f"No answer to {key!r} after {PATIENCE} s; {done} of {len(self)} others have come"
            ) from None

    def __iter__(self):
        return iter(self._answers)

    def __len__(self):
        return len(self._answers)

    def close(self):
        """Leave what has not been answered."""

        async def leave():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(leave(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
