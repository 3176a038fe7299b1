"""`langchain-eft` that reports every callback of its event loop which takes long.

It counts the processor's time, not the clock's: so a busy machine makes no difference.
"""

import asyncio
import json
import sys
import time

from langchain_eft.cli import app

REPORTED = 0.05
"""Seconds of processor time from which a callback is reported."""

_run = asyncio.Handle._run


def _clocked(handle):
    started = time.thread_time()
    _run(handle)
    seconds = time.thread_time() - started
    if seconds > REPORTED:
        line = {"event": "slow_callback", "seconds": round(seconds, 3), "callback": repr(handle)[:500]}
        sys.stderr.write(json.dumps(line) + "\n")


def clocked():
    asyncio.Handle._run = _clocked
    app()
