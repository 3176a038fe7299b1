"""Threads that share the work of a kernel: here the product, whose outputs are its shares."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import torch

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import FLOAT32
from langchain_eft.engine.kernels.products import Product
from langchain_eft.engine.kernels.threads import Workers, workers
from unit_tests.helpers import PATIENCE, wait_until


def product(x, parts, target=None):
    return Product(parts, target)(x)


@pytest.fixture(autouse=True)
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def result():
    """A product that is large enough to be shared, and whether it is right."""
    numbers = torch.randn(2083, 256, generator=torch.Generator().manual_seed(0))
    weight, x = numbers[3:], numbers[:3]
    y = product(x, [FLOAT32.pack(weight, Arena())])
    torch.testing.assert_close(y, x @ weight.T, rtol=0, atol=1e-3)
    return y


def test_threads_that_have_jobs_at_once_get_their_own_results():
    expected = result()
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: result(), range(40)):
            assert torch.equal(y, expected)


def test_workers_that_sleep_wake_up():
    result()
    while workers()._awake.is_set():  # each goes to sleep after a while without a job
        pass
    result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_workers_of_its_own():
    weight, x = [FLOAT32.pack(torch.randn(2080, 256), Arena())], torch.randn(3, 256)
    y = product(x, weight)
    child = os.fork()
    if not child:  # torch's own threads would hang here
        code = 1
        try:
            same = bytes(product(x, weight).numpy()) == bytes(y.numpy())
            code = 0 if same and len(workers()._threads) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
def test_a_process_ends_while_its_workers_look_for_jobs():
    program = (
        "import torch; torch.set_num_threads(3)\n"
        "from unit_tests.engine.kernels.test_threads import result; result()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)  # noqa: S603
    assert done.returncode == 0


def test_a_worker_that_falls_asleep_late_keeps_no_other_from_ending():
    """One is about to wait, the other still looks for a job while the workers are stopped."""
    about_to_wait, stopped, both = Event(), Event(), Event()

    class Slow(Event):
        def wait(self):
            about_to_wait.set()
            assert both.wait(PATIENCE)
            return super().wait()

    pair = Workers()
    pair._awake = Slow()
    looks = iter([lambda: None, lambda: stopped.wait(PATIENCE)])
    pair._work = lambda _: next(looks)()
    early, late = pair._threads = [Thread(target=pair._serve, daemon=True) for _ in range(2)]
    early.start()
    assert about_to_wait.wait(PATIENCE)
    late.start()
    stop = Thread(target=pair.stop, daemon=True)
    stop.start()
    wait_until(pair._awake.is_set)
    stopped.set()
    late.join(0.2)  # it ends, or waits as well
    both.set()
    for thread in (early, late, stop):
        thread.join(10)
        assert not thread.is_alive()
