"""Recordings: each once, without a trace of trial runs, and called where recording fails."""

import torch

from langchain_eft.engine.rounds.cuda_graphs import Graphs


def test_each_key_is_recorded_once_and_warm_up_changes_no_value():
    state, runs, recorded = torch.zeros(1), [], []

    def step():
        state.add_(1)
        runs.append(1)

    def recorder(function):
        function()
        function()
        recorded.append(function)
        return function

    graphs = Graphs(recorder, keep=[state])
    assert "a" not in graphs
    for _ in range(3):
        graphs.run("a", step)
    graphs.run("b", step)
    assert len(recorded) == 2
    assert float(state) == 4
    assert len(runs) == 8
    graphs.forget("a")
    graphs.run("a", step)
    assert len(recorded) == 3


def test_a_function_that_cannot_be_recorded_is_called_with_one_warning(caplog):
    done, graphs = [], None

    def recorder(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(recorder, keep=[])
    for _ in range(3):
        graphs.run("a", lambda: done.append(1))
    assert len(done) == 3
    assert sum("not permitted" in record.message for record in caplog.records) == 1
