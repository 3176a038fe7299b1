"""Compiled kernels in the cache folder."""

import subprocess
import sys

import numpy as np
import pytest

from langchain_eft.engine import cache_folder
from langchain_eft.engine.kernels import store
from langchain_eft.engine.kernels.target import Target, host

ROOM = "unit_tests.engine.kernels.adding"
PROGRAM = (
    "import sys\n"
    "from unit_tests.engine.kernels.test_store import assert_adds\n"
    "assert_adds()\n"
    "print('numba' in sys.modules)"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of a cache that is empty, as if the process had just started."""
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(store, "_loaded", {})
    return tmp_path / "kernels"


def assert_adds(**settings):
    """The kernel that the store returns adds."""
    kernel = store.kernel(ROOM, "add", **settings)
    x, y, out = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    addresses = np.array([each.ctypes.data for each in (x, y, out)])
    kernel(addresses.ctypes.data)
    np.testing.assert_array_equal(out, x + y)


def start():
    return subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)  # noqa: S603


def restart(monkeypatch):
    monkeypatch.setattr(store, "_loaded", {})


def test_a_kernel_is_compiled_once_a_machine(folder, monkeypatch):
    said = []
    for _ in range(2):
        assert_adds(progress=said.append)
        assert_adds(progress=said.append)
        restart(monkeypatch)
    assert said == ["Compiling the kernel add for this processor (once, some seconds)"]
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_process_that_finds_the_kernel_imports_no_numba(folder):
    assert start().communicate()[0] == "True\n"
    assert start().communicate()[0] == "False\n"


@pytest.mark.slow
def test_processes_may_compile_at_once(folder):
    processes = [start() for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(list(folder.iterdir())) == 1
    for process in processes:
        process.stdout.close()


def test_each_processor_and_each_version_has_a_file_of_its_own(folder, monkeypatch):
    assert_adds()
    assert_adds(target=Target(host().cpu, "-avx512f"))
    restart(monkeypatch)
    monkeypatch.setattr(store, "_sources", lambda: "changed")
    assert_adds()
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" * 99]
)
def test_a_damaged_file_is_compiled_anew(folder, monkeypatch, damage):
    assert_adds()
    (file,) = folder.iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage(intact))
    restart(monkeypatch)
    assert_adds()
    assert len(file.read_bytes()) == len(intact)


def test_files_that_others_could_have_written_are_not_run(folder, monkeypatch, caplog):
    assert_adds()
    folder.chmod(0o770)
    restart(monkeypatch)
    said = []
    with caplog.at_level("INFO", logger="langchain_eft"):
        assert_adds(progress=said.append)
    assert len(said) == 1
    assert "others may write" in caplog.text


def test_a_process_that_can_keep_no_file_compiles_its_own(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with caplog.at_level("INFO", logger="langchain_eft"):
        assert_adds()
    assert "is not kept" in caplog.text
