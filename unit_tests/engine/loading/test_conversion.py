"""Finding checkpoints, and the cache of converted weights: hashed, atomic, rebuilt when damaged."""

import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_eft.engine import cache_folder
from langchain_eft.engine.errors import CheckpointCacheError
from langchain_eft.engine.loading import conversion
from unit_tests.tiny import write_gguf


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A fake GGUF file that records its conversions. An integration test converts a real one."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    conversions = []

    def convert(source, folder, *, weights):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"converted " + source.read_bytes())
        conversions.append(folder)

    monkeypatch.setattr(conversion, "convert_gguf", convert)
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path / "cache"))
    return type("Gguf", (), {"path": file, "conversions": conversions})


def convert(gguf):
    return conversion.converted(gguf.path, lambda _: None)


def test_a_second_start_converts_nothing(gguf):
    folder = convert(gguf)
    assert (folder / "model.safetensors").read_bytes() == b"converted weights"
    assert convert(gguf) == folder
    assert len(gguf.conversions) == 1


def test_other_content_is_another_model(gguf):
    first = convert(gguf)
    gguf.path.write_bytes(b"new weights")
    assert convert(gguf) != first


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing", "manifest"])
def test_a_damaged_cache_is_rebuilt(gguf, damage):
    folder = convert(gguf)
    weights = folder / "model.safetensors"
    if damage == "changed":
        weights.write_bytes(b"converted weightz")
    elif damage == "truncated":
        weights.write_bytes(b"conv")
    elif damage == "missing":
        weights.unlink()
    else:
        (folder / "manifest.json").write_text("{")
    assert convert(gguf) == folder
    assert weights.read_bytes() == b"converted weights"
    assert len(gguf.conversions) == 2


def test_a_crash_leaves_no_incomplete_model(gguf, monkeypatch):
    def crash(source, folder, *, weights):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    working = conversion.convert_gguf
    monkeypatch.setattr(conversion, "convert_gguf", crash)
    with pytest.raises(KeyboardInterrupt):
        convert(gguf)
    assert [path for path in cache_folder.cache_folder().iterdir() if path.is_dir()] == []
    monkeypatch.setattr(conversion, "convert_gguf", working)
    assert conversion.is_intact(convert(gguf))


SLOW_PROCESS = """
import sys, time
from pathlib import Path
from langchain_eft.engine.loading import conversion

def convert(source, folder, *, weights):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"slowly converted")
    print("converting", flush=True)
    sys.stdin.readline()

conversion.convert_gguf = convert
conversion.converted(Path(sys.argv[1]), lambda _: None)
"""


@pytest.fixture
def slow_process(gguf):
    """Another process, in the middle of converting the same file. It goes on when its input ends."""
    command = [sys.executable, "-c", SLOW_PROCESS, gguf.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout.readline() == b"converting\n"
        yield process
        process.kill()


def scratch_folders():
    return list(cache_folder.cache_folder().glob(".new-*"))


def test_the_model_of_a_faster_process_is_used(gguf, slow_process):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(convert, gguf)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        assert len(scratch_folders()) == 1  # the other process still owns it
        slow_process.stdin.close()
        assert (waiting.result() / "model.safetensors").read_bytes() == b"slowly converted"
    assert gguf.conversions == scratch_folders() == []


def test_what_a_killed_process_left_behind_is_removed(gguf, slow_process):
    slow_process.kill()
    slow_process.wait()
    assert len(scratch_folders()) == 1
    assert (convert(gguf) / "model.safetensors").read_bytes() == b"converted weights"
    assert scratch_folders() == []


def test_a_full_disk_is_reported_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path / "cache"))
    write_gguf(tmp_path / "real.gguf")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointCacheError, match=rf"{tmp_path}/cache.*free some space"):
            conversion.converted(tmp_path / "real.gguf", lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert scratch_folders() == []


def test_an_unwritable_cache_folder_is_reported_with_the_remedy(gguf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointCacheError, match=r"file/cache.*set LANGCHAIN_EFT_CACHE"):
        convert(gguf)
