import json
import stat

import pytest
from pydantic import ValidationError

from langchain_eft.engine.cache_folder import CACHE_VARIABLE
from langchain_eft.engine.errors import CheckpointCacheError, CheckpointNotFoundError
from langchain_eft.remote.tokenizer_files import (
    TokenizerFiles,
    cached_tokenizer,
    load_tokenizer,
    tokenizer_files,
)
from unit_tests.tiny import TOOL_TEMPLATE, tokenizer

MESSAGES = [{"role": "user", "content": "Ça va? 你好 🐳 <end>"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    words = tokenizer()
    words.chat_template = TOOL_TEMPLATE.replace("\n", "\r\n")
    folder = tmp_path_factory.mktemp("very-private-folder")
    words.save_pretrained(folder)
    return load_tokenizer(folder)


def test_a_tokenizer_that_was_sent_is_the_original(original):
    sent = TokenizerFiles.model_validate_json(tokenizer_files(original).model_dump_json())
    received = cached_tokenizer(sent.hash, lambda: sent)
    assert received.chat_template == original.chat_template
    rendered = [
        each.apply_chat_template(MESSAGES, add_generation_prompt=True) for each in (received, original)
    ]
    assert rendered[0].input_ids == rendered[1].input_ids
    assert received.get_vocab() == original.get_vocab()
    assert received.special_tokens_map == original.special_tokens_map
    assert [t.special for t in received.added_tokens_decoder.values()] == [
        t.special for t in original.added_tokens_decoder.values()
    ]
    assert received.decode(range(len(original))) == original.decode(range(len(original)))


def test_nothing_is_sent_of_where_it_was(original):
    assert "very-private-folder" in original.name_or_path
    files = tokenizer_files(original)
    assert "very-private-folder" not in files.model_dump_json()
    config = json.loads(files.files["tokenizer_config.json"])
    assert not {"name_or_path", "is_local", "auto_map"} & config.keys()


def test_it_is_fetched_once(original):
    sent, fetched = tokenizer_files(original), []

    def fetch():
        fetched.append(1)
        return sent

    for _ in range(3):
        cached_tokenizer(sent.hash, fetch)
    assert fetched == [1]


def test_the_same_tokenizer_has_the_same_hash(original):
    assert tokenizer_files(original).hash == tokenizer_files(original).hash


def test_content_of_another_hash_is_refused(original, cache):
    sent = tokenizer_files(original)
    changed = TokenizerFiles(files={**sent.files, "chat_template.jinja": "{{ evil }}"})
    with pytest.raises(CheckpointNotFoundError, match=changed.hash):
        cached_tokenizer(sent.hash, lambda: changed)
    assert [path.name for path in (cache / "tokenizers").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..", "", "a//b", ".hidden"])
def test_files_stay_in_their_folder(name, cache):
    sent = TokenizerFiles(files={name: "x"})
    with pytest.raises(CheckpointNotFoundError, match="no name"):
        cached_tokenizer(sent.hash, lambda: sent)
    assert not list(cache.rglob("*evil*"))


def test_thousands_of_files_are_one_error():
    with pytest.raises(ValidationError) as caught:
        TokenizerFiles.model_validate_json(json.dumps({"files": dict.fromkeys(map(str, range(2000)), 1)}))
    assert caught.value.error_count() == 1


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(CheckpointNotFoundError, match="no hash"):
        cached_tokenizer("../../etc", lambda: None)


def test_a_wrong_setting_is_found_when_the_tokenizer_is_loaded(original):
    sent = tokenizer_files(original)
    config = {**json.loads(sent.files["tokenizer_config.json"]), "model_max_length": "long"}
    broken = TokenizerFiles(files={**sent.files, "tokenizer_config.json": json.dumps(config)})
    with pytest.raises(CheckpointNotFoundError, match="damaged"):
        cached_tokenizer(broken.hash, lambda: broken)


def test_a_cache_that_cannot_be_written_names_the_variable(original, cache, monkeypatch):
    cache.mkdir()
    (cache / "tokenizers").write_text("a file is in the way")
    sent = tokenizer_files(original)
    with pytest.raises(CheckpointCacheError, match=CACHE_VARIABLE):
        cached_tokenizer(sent.hash, lambda: sent)
    assert stat.S_ISREG((cache / "tokenizers").stat().st_mode)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
