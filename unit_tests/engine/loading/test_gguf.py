"""A GGUF file loads, or is refused by name before anything is allocated that it cannot fill."""

import resource
import shutil
import struct
import time

import pytest

from langchain_eft.engine.cache_folder import CACHE_VARIABLE
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import CheckpointNotFoundError, EngineError
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.loading.gguf import read_header
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.helpers import answer, flip_bytes, request, slow
from unit_tests.tiny import write_gguf


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    write_gguf(tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


def decode(gguf):
    engine = Engine(Recipe(base=str(gguf)), EngineConfig(kv_cache_tokens=64))
    try:
        return answer(engine, request([5, 6], max_tokens=4))[1].completion_tokens
    finally:
        engine.close()


def test_an_intact_file_decodes(gguf):
    assert read_header(gguf).num_weights == 26944
    assert decode(gguf) > 0


def test_no_second_copy_of_the_weights_is_written(gguf, tmp_path):
    decode(gguf)
    (folder,) = (tmp_path / "cache").glob("model-*")
    assert not list(folder.glob("*.safetensors"))
    converted = find_checkpoint(str(gguf)).fetch(lambda _: None)  # as for a GPU, or for vLLM
    assert converted == folder
    assert list(folder.glob("*.safetensors"))
    decode(gguf)
    assert list(folder.glob("*.safetensors")), "they stay"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" * 100, bytes(1000)])
def test_a_file_that_is_no_gguf_is_named(gguf, content):
    gguf.write_bytes(content)
    for use in (decode, lambda path: read_config(find_checkpoint(str(path)))):
        with pytest.raises(CheckpointNotFoundError, match=rf"{gguf}.*no intact GGUF file; fetch it again"):
            use(gguf)


@pytest.mark.parametrize("size", [100, 5000, -1])
def test_a_truncated_file_is_named(gguf, size):
    gguf.write_bytes(gguf.read_bytes()[:size])
    with pytest.raises(CheckpointNotFoundError, match=rf"{gguf}.*the file ends early"):
        decode(gguf)


def with_number(gguf, name, number):
    """Replace the 32-bit number of a setting."""
    content = gguf.read_bytes()
    start = content.index(name.encode()) + len(name) + 4
    gguf.write_bytes(content[:start] + struct.pack("<I", number) + content[start + 4 :])


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("llama.block_count", 2**31, "2147483648 layers, but 20 tensors"),
        ("llama.block_count", 5, "describes a model of .* weights and holds|weights are missing"),
        ("llama.embedding_length", 2**20, "describes a model of .* weights and holds 26944"),
        ("llama.vocab_size", 2**31, "describes a model of .* weights and holds 26944"),
        ("llama.feed_forward_length", 32, r"other shapes.*mlp\.gate_proj"),
        ("llama.attention.head_count", 0, "cannot be read"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused_before_memory_is_allocated(
    gguf, name, number, reason
):
    with_number(gguf, name, number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointNotFoundError, match=rf"{gguf}.*({reason})"):
        decode(gguf)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # KiB


@pytest.mark.parametrize("length", [2**32, 2**62])
def test_an_array_longer_than_any_vocabulary_is_refused(gguf, length):
    content = gguf.read_bytes()
    start = content.index(b"tokenizer.ggml.token_type") + 25 + 4 + 4
    gguf.write_bytes(content[:start] + struct.pack("<Q", length) + content[start + 8 :])
    with pytest.raises(CheckpointNotFoundError, match=rf"{gguf}.*an array has {length} elements"):
        decode(gguf)


def test_a_file_without_a_weight_is_refused_with_the_weight(gguf):
    gguf.write_bytes(gguf.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(CheckpointNotFoundError, match=r"weights are missing.*layers\.1\.mlp\.up_proj"):
        decode(gguf)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(16), *slow(range(16, 116))])
def test_a_file_with_flipped_bytes_is_refused_by_name_or_decodes(gguf, tmp_path, seeds):
    """In bounded time and memory."""
    intact, messages = gguf.read_bytes(), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        gguf.write_bytes(intact)
        flip_bytes(gguf, seed)
        started = time.process_time()
        try:
            decode(gguf)
        except EngineError as error:
            messages.append(str(error))
        assert time.process_time() - started < 30, seed
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert 0 < len(messages) < len(seeds)
    named = (str(gguf), f"{tmp_path}/cache/model-")
    assert [message for message in messages if not any(name in message for name in named)] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # KiB
