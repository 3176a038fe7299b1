"""Recordings: each once, without a trace of trial runs; what fails harms no later one."""

import gc
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from langchain_eft.engine.loading.memory import return_freed_memory
from langchain_eft.engine.rounds.cuda_graphs import (
    CudaRecorder,
    Graphs,
    RecordingError,
    RecordingUnavailableError,
    Streams,
)


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


def test_a_recording_that_was_disturbed_is_made_again(caplog):
    graphs, function = Graphs(recorder_that_raises(REFUSED)), Called()
    graphs.record("a", function)
    graphs.run("a", function)
    assert function.how == ["replayed"]
    assert not caplog.records


def test_a_function_that_cannot_be_recorded_is_called_with_one_warning(caplog):
    graphs, function, other = Graphs(recorder_that_raises(REFUSED, REFUSED)), Called(), Called()
    graphs.record("a", function)
    assert "a" in graphs
    for _ in range(3):
        graphs.run("a", function)
    assert function.how == ["called"] * 3
    assert sum("not permitted" in record.message for record in caplog.records) == 1
    graphs.record("b", other)
    graphs.run("b", other)
    assert other.how == ["replayed"]


def test_without_memory_older_recordings_make_place(caplog):
    graphs, function = Graphs(recorder_that_raises()), Called()
    graphs.record("old", function)
    graphs._recorder = recorder_that_raises(torch.OutOfMemoryError("no memory"))
    graphs.record("new", function)
    assert ("old" in graphs, "new" in graphs) == (False, True)
    assert not caplog.records


def test_without_memory_at_all_the_request_fails_and_a_later_one_is_recorded():
    graphs = Graphs(recorder_that_raises(*[torch.OutOfMemoryError("no memory")] * 2))
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        graphs.record("a", Called())
    assert "a" not in graphs
    graphs.record("a", function := Called())
    graphs.run("a", function)
    assert function.how == ["replayed"]


def test_an_error_of_the_function_itself_is_not_an_error_of_recording(caplog):
    graphs = Graphs(recorder_that_raises(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        graphs.record("a", Called())
    assert not caplog.records


def test_when_pytorch_does_not_recover_recording_ends_and_says_so_once(caplog):
    graphs = Graphs(recorder_that_raises(RecordingUnavailableError("captures_underway")))
    functions = [Called(), Called()]
    for key, function in enumerate(functions):
        if key not in graphs:
            graphs.record(key, function)
        graphs.run(key, function)
    assert [function.how for function in functions] == [["called"], ["called"]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "captures_underway" in caplog.text
    assert "Start a new process" in caplog.text


# The recorder of a GPU, over a stand-in for PyTorch's allocator


class FakeCuda:
    """The rules of `torch.cuda` for recordings.

    Args:
        ends: Whether a failed recording ends its allocations (since pytorch#180395).
        recovers: Whether they can be ended afterwards.
    """

    def __init__(self, monkeypatch, *, ends=False, recovers=True):
        self.ends, self.recovers = ends, recovers
        self.underway, self.pools, self.recorded = [], 0, 0
        self.current = self.plain = SimpleNamespace(wait_stream=lambda other: None)
        replacements = {
            "graph": self.graph, "stream": self.stream, "set_stream": self.set_stream,
            "empty_cache": self.empty_cache, "graph_pool_handle": self.new_pool,
            "current_stream": lambda: self.current,
            "Stream": lambda device: SimpleNamespace(wait_stream=lambda other: None),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        }  # fmt: skip
        for name, replacement in replacements.items():
            monkeypatch.setattr(torch.cuda, name, replacement)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)

    def new_pool(self):
        self.pools += 1
        return 0, self.pools

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

    def end(self, device, pool):
        if not self.recovers or pool not in self.underway:
            raise RuntimeError("not currently recording to mempool_id")
        self.underway.remove(pool)

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        self.empty_cache()
        before, self.current = self.current, stream
        self.underway.append(pool)
        try:
            yield
        except RuntimeError:
            if self.ends:
                self.underway.remove(pool)
            raise torch.AcceleratorError("capture invalidated") from None
        self.underway.remove(pool)
        self.current, self.recorded = before, self.recorded + 1


def fails_while_recorded(cuda, error):
    """A function that works except in a recording."""

    def function():
        if cuda.underway:
            raise error

    return function


DEVICE = torch.device("cuda", 0)


@pytest.mark.parametrize("ends", [False, True])
def test_a_failed_recording_does_not_spoil_the_next_one(monkeypatch, ends):
    cuda = FakeCuda(monkeypatch, ends=ends)
    recorder = CudaRecorder(DEVICE)
    with pytest.raises(RecordingError, match="reads a value"):
        recorder(fails_while_recorded(cuda, RuntimeError("reads a value")))
    assert cuda.current is cuda.plain
    recorder(lambda: None)
    assert cuda.recorded == 1
    cuda.empty_cache()


def test_a_recorder_notices_that_pytorch_does_not_recover(monkeypatch):
    cuda = FakeCuda(monkeypatch, recovers=False)
    with pytest.raises(RecordingUnavailableError):
        CudaRecorder(DEVICE)(fails_while_recorded(cuda, RuntimeError("reads a value")))


def test_no_memory_for_a_recording_is_told_from_a_function_that_cannot_be_recorded(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    recorder = CudaRecorder(DEVICE)
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB"):
        recorder(fails_while_recorded(cuda, torch.OutOfMemoryError("tried to allocate 2 GiB")))
    recorder(lambda: None)
    assert cuda.recorded == 1


def test_a_failed_recording_keeps_no_tensors(monkeypatch):
    """What the round had computed is freed for the second attempt, without the garbage collector."""
    cuda, alive = FakeCuda(monkeypatch), []

    def function():
        tensor = torch.zeros(3)
        if cuda.underway:
            alive.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    graphs = Graphs(CudaRecorder(DEVICE))
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            graphs.record("a", function)
        assert [reference() for reference in alive] == [None, None]
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
    streams = Streams(torch.device("cpu"), 3)
    streams._side = [torch.cuda.Stream(DEVICE) for _ in range(2)]
    with pytest.raises(RuntimeError, match="no memory"):
        streams.run([lambda: 1, lambda: 2, lambda: (_ for _ in ()).throw(RuntimeError("no memory"))])
    assert joined == streams._side
