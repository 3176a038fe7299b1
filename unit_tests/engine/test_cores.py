"""How many cores a process may use."""

import os

import pytest

from langchain_eft.engine import cores


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group of a machine with 8 cores. Nothing is remembered."""
    monkeypatch.setattr(cores, "_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    cores.cores_of_container.cache_clear()
    yield tmp_path
    cores.cores_of_container.cache_clear()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("990000 100000", 8),
    ],
)
def test_the_time_of_a_container_counts(group, limit, expected):
    (group / "cpu.max").write_text(limit)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3)])
def test_older_control_groups_are_read(group, quota, expected):
    (group / "cpu").mkdir()
    (group / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == expected


def test_without_control_groups_all_cores_count(group):
    assert cores.usable_cores() == 8
