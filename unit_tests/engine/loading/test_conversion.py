"""Finding checkpoints, and the cache of converted weights: hashed, atomic, rebuilt when damaged."""

import shutil

import pytest

from langchain_eft.engine import cache_folder
from langchain_eft.engine.errors import CheckpointCacheError
from langchain_eft.engine.loading import conversion


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A fake GGUF file that records its conversions. An integration test converts a real one."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    conversions = []

    def convert(source, folder):
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
    def crash(source, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    working = conversion.convert_gguf
    monkeypatch.setattr(conversion, "convert_gguf", crash)
    with pytest.raises(KeyboardInterrupt):
        convert(gguf)
    assert list(cache_folder.cache_folder().iterdir()) == []
    monkeypatch.setattr(conversion, "convert_gguf", working)
    assert conversion.is_intact(convert(gguf))


def test_the_model_of_a_faster_process_is_used(gguf, monkeypatch):
    original = conversion.convert_gguf

    def overtaken(source, folder):
        original(source, folder)
        final = cache_folder.cache_folder() / f"model-{conversion.checksum(gguf.path)[:16]}"
        shutil.copytree(folder, final)
        conversion.seal(final)

    monkeypatch.setattr(conversion, "convert_gguf", overtaken)
    assert conversion.is_intact(convert(gguf))


def test_an_unwritable_cache_folder_is_reported_with_the_remedy(gguf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(cache_folder.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointCacheError, match=r"file/cache.*set LANGCHAIN_EFT_CACHE"):
        convert(gguf)
