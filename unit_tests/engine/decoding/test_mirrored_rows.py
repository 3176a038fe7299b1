"""Rows that the host writes: a device sees those that were sent, and a CPU sees all at once."""

import torch

from langchain_eft.engine.decoding.mirrored_rows import MirroredRows


def test_on_a_cpu_both_are_the_same_memory():
    rows = MirroredRows(torch.zeros(3, 2), torch.device("cpu"))
    rows.host[1] = 5
    assert rows.device[1].tolist() == [5, 5]


def test_a_device_gets_the_rows_that_have_changed(monkeypatch):
    for dim in (0, 1):
        rows = MirroredRows(torch.zeros(3, 3), torch.device("cpu"), dim)
        rows.device = rows.host.clone()  # what a device would have
        rows.host[1], rows.host[:, 2] = 5, 7
        rows.touch(1)
        assert not rows.device.any(), "nothing is sent before it is asked for"
        rows.flush()
        assert rows.device.select(dim, 1).tolist() == rows.host.select(dim, 1).tolist()
        assert not rows.device.select(dim, 0).any()
        rows.host.zero_()
        rows.flush()
        assert rows.device.any(), "nothing has been touched since"
