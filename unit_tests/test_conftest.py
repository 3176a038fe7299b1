"""What the tests of both folders share."""

from types import SimpleNamespace

import pytest

import conftest


@pytest.mark.parametrize(
    ("markers", "shown"),
    [("cuda", True), ("cuda and not slow", True), ("slow and cuda", True), ("", False), ("not cuda", False)],
)
def test_tests_see_a_gpu_where_cuda_chooses_them(monkeypatch, markers, shown):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    conftest.pytest_configure(SimpleNamespace(option=SimpleNamespace(markexpr=markers)))
    assert (conftest.os.environ["CUDA_VISIBLE_DEVICES"] == "0") is shown
