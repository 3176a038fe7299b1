"""Recordings: each once, without a trace of trial runs; what fails harms no later one."""

import gc
import threading
import time
import weakref
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from langchain_eft.engine.loading.memory import return_freed_memory
from langchain_eft.engine.rounds import cuda_graphs
from langchain_eft.engine.rounds.cuda_graphs import CudaRecorder, Graphs, RecordingError, Streams


def test_each_key_is_recorded_once():
    runs, recorded = [], []

    def step():
        runs.append(1)

    def recorder(function):
        function()
        function()
        recorded.append(function)
        return function

    graphs = Graphs(recorder)
    assert "a" not in graphs
    graphs.record("a", step)
    for _ in range(3):
        graphs.run("a", step)
    assert "a" in graphs
    assert len(runs) == 5
    graphs.forget("a")
    assert "a" not in graphs
    assert len(recorded) == 1


def recorder_that_raises(*errors):
    """A recorder whose first attempts fail."""
    left = list(errors)

    def recorder(function):
        if left:
            raise left.pop(0)
        return lambda: function("replayed")

    return recorder


class Called:
    """A function that notes how it was run."""

    def __init__(self):
        self.how = []

    def __call__(self, how="called"):
        self.how.append(how)


REFUSED = RecordingError("operation not permitted when stream is capturing")


def test_an_error_of_the_function_itself_is_not_an_error_of_recording(caplog):
    graphs = Graphs(recorder_that_raises(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        graphs.record("a", Called())
    assert not caplog.records


def test_after_a_recording_that_failed_nothing_is_recorded_any_more_with_one_warning(caplog):
    """A model that asks the host fails in every recording, and PyTorch may not have ended the first one."""
    graphs, old, new, newer = Graphs(recorder_that_raises()), Called(), Called(), Called()
    graphs.record("old", old)
    graphs._recorder = recorder_that_raises(RecordingError("not permitted when stream is capturing"))
    for key, function in (("new", new), ("newer", newer)):
        if key not in graphs:
            graphs.record(key, function)
    for key, function in (("old", old), ("new", new), ("newer", newer)):
        graphs.run(key, function)
    assert (old.how, new.how, newer.how) == (["replayed"], ["called"], ["called"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not permitted" in caplog.text


# The recorder of a GPU, over a stand-in for PyTorch's allocator


class FakeCuda:
    """The rules of `torch.cuda` for recordings."""

    def __init__(self, monkeypatch):
        self.underway, self.recorded = 0, 0
        self.current = self.plain = SimpleNamespace(wait_stream=lambda other: None)
        replacements = {
            "graph": self.graph, "stream": self.stream, "set_stream": self.set_stream,
            "empty_cache": self.empty_cache, "graph_pool_handle": lambda: (0, 1),
            "current_stream": lambda: self.current,
            "Stream": lambda device: SimpleNamespace(wait_stream=lambda other: None),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        }  # fmt: skip
        for name, replacement in replacements.items():
            monkeypatch.setattr(torch.cuda, name, replacement)
        monkeypatch.setattr(cuda_graphs, "_stream", cache(cuda_graphs._stream.__wrapped__))

    def set_stream(self, stream):
        self.current = stream

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def empty_cache(self):
        if self.underway:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        """A recording that fails is never ended, as until pytorch#180395."""
        self.empty_cache()
        before, self.current = self.current, stream
        self.underway += 1
        try:
            yield
        except RuntimeError:
            raise torch.AcceleratorError("capture invalidated") from None
        self.underway -= 1
        self.current, self.recorded = before, self.recorded + 1


def fails_while_recorded(cuda, error):
    """A function that works except in a recording."""

    def function():
        if cuda.underway:
            raise error

    return function


DEVICE = torch.device("cuda", 0)


def test_a_recording_that_fails_leaves_the_stream_and_memory_may_be_returned(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    with pytest.raises(RecordingError, match="reads a value"):
        CudaRecorder(DEVICE)(fails_while_recorded(cuda, RuntimeError("reads a value")))
    assert cuda.current is cuda.plain
    return_freed_memory()


def test_no_memory_for_warm_up_is_an_error_of_the_function(monkeypatch):
    cuda, error = FakeCuda(monkeypatch), torch.OutOfMemoryError("tried to allocate 2 GiB")
    recorder = CudaRecorder(DEVICE)

    def function():
        raise error

    with pytest.raises(torch.OutOfMemoryError, match="2 GiB"):
        recorder(function)
    recorder(lambda: None)
    assert cuda.recorded == 1


def test_a_failed_recording_keeps_no_tensors(monkeypatch):
    """What the round had computed is freed at once, without the garbage collector."""
    cuda, alive = FakeCuda(monkeypatch), []

    def function():
        tensor = torch.zeros(3)
        if cuda.underway:
            alive.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    graphs = Graphs(CudaRecorder(DEVICE))
    gc.disable()
    try:
        graphs.record("a", function)
        assert [reference() for reference in alive] == [None]
    finally:
        gc.enable()


def test_threads_record_one_after_the_other_and_return_no_memory_meanwhile(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    errors = []

    def noted(work):
        try:
            work()
        except RuntimeError as error:
            errors.append(str(error))

    recorders = [CudaRecorder(DEVICE) for _ in range(2)]
    works = [lambda r=recorder: r(lambda: time.sleep(0.05)) for recorder in recorders]
    threads = [threading.Thread(target=noted, args=[work]) for work in (*works, return_freed_memory)]
    for thread in threads:
        thread.start()
        time.sleep(0.12 if thread is threads[0] else 0)  # the others come while the first one records
    for thread in threads:
        thread.join()
    assert errors == []
    assert cuda.recorded == 2


def test_a_piece_that_fails_leaves_no_stream_open(monkeypatch):
    """A recording ends only when all of its branches have been joined."""
    cuda, joined = FakeCuda(monkeypatch), []
    cuda.current.wait_stream = joined.append
    streams = Streams(DEVICE)
    with pytest.raises(RuntimeError, match="no memory"):
        streams.run([lambda: 1, lambda: 2, lambda: (_ for _ in ()).throw(RuntimeError("no memory"))])
    assert joined == [cuda_graphs._stream(DEVICE, number, recording=False) for number in (1, 2)]


def test_recordings_have_streams_of_their_own_and_all_engines_the_same(monkeypatch):
    cuda, used = FakeCuda(monkeypatch), {"called": [], "recorded": []}

    def function():
        how = "recorded" if cuda.underway else "called"
        Streams(DEVICE).run([lambda: None, lambda: used[how].append(cuda.current)])

    for _ in range(2):
        function()
    CudaRecorder(DEVICE)(function)
    CudaRecorder(DEVICE)(function)
    first, second, *warm_up = used["called"]
    assert first is second
    assert first not in warm_up
    assert all(each is used["recorded"][0] for each in [*warm_up, *used["recorded"]])
