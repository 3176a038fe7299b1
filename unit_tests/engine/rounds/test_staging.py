"""Tensors of one round in one block of memory, on their way between host and device."""

import time

import pytest
import torch

from langchain_eft.engine.rounds.staging import (
    DeviceToHost,
    HostToDevice,
    PackedTensors,
    now,
    seconds_between,
)

CPU = torch.device("cpu")
FIELDS = {
    "flags": ((3,), torch.bool),
    "ids": ((2, 5), torch.int64),
    "weights": ((2, 1, 3), torch.float32),
    "none": ((0, 4), torch.int32),
}


def test_tensors_have_their_shapes_and_types_and_do_not_overlap():
    packed = PackedTensors(FIELDS, CPU)
    values = {
        "flags": torch.tensor([True, False, True]),
        "ids": torch.arange(10).view(2, 5),
        "weights": torch.randn(2, 1, 3),
        "none": torch.zeros(0, 4, dtype=torch.int32),
    }
    for name, value in values.items():
        assert (packed[name].shape, packed[name].dtype) == (value.shape, value.dtype)
        assert not packed[name].any(), "memory begins empty"
    for name, value in values.items():
        packed[name].copy_(value)
    for name, value in values.items():
        assert torch.equal(packed[name], value)


def test_one_copy_of_the_memory_moves_every_tensor():
    source, target = PackedTensors(FIELDS, CPU), PackedTensors(FIELDS, CPU)
    source["ids"].fill_(7)
    source["weights"].fill_(0.5)
    target.memory.copy_(source.memory)
    assert (target["ids"] == 7).all()
    assert (target["weights"] == 0.5).all()


def test_the_device_reads_what_the_host_has_written_and_nothing_older():
    staging = HostToDevice(FIELDS, CPU)
    for value in (3, 4):
        host = staging.open()
        assert not host.memory.any(), "a block is opened empty"
        host["ids"][0] = value
        staging.send()
        assert staging.device["ids"].tolist() == [[value] * 5, [0] * 5]


def test_the_results_of_two_rounds_may_be_unread():
    staging = DeviceToHost(FIELDS, CPU)
    copies = []
    for value in (3, 4):
        staging.device["ids"].fill_(value)
        copies.append(staging.send())
    staging.device["ids"].fill_(5)
    assert [int(copy.read()["ids"][0, 0]) for copy in copies] == [3, 4]


def test_time_is_measured_in_seconds():
    start = now(CPU)
    time.sleep(0.02)
    assert 0.02 <= seconds_between(start, now(CPU)) < 5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies that nobody waits for need a CUDA device")
def test_copies_between_host_and_gpu_arrive():
    device = torch.device("cuda")
    there, back = HostToDevice(FIELDS, device), DeviceToHost(FIELDS, device)
    copies = []
    for value in (3, 4):
        there.open()["ids"].fill_(value)
        there.send()
        back.device["ids"].copy_(there.device["ids"])
        copies.append(back.send())
    assert [int(copy.read()["ids"][1, 4]) for copy in copies] == [3, 4]
