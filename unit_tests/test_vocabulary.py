"""Token strings are compared, never sizes."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from langchain_eft.engine.errors import VocabularyMismatchError
from langchain_eft.engine.vocabulary import compare, require_same_text


def tokenizer(words, special=()):
    raw = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate([*words, *special])}, unk_token=words[0])
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=list(special))


def test_equal_vocabularies_have_no_differences():
    report = compare(tokenizer(["a", "b"]), tokenizer(["a", "b"]))
    assert report.common == {0, 1}
    require_same_text(report, "base", "small")


def test_swapped_words_are_refused_although_sizes_agree():
    report = compare(tokenizer(["a", "b", "c"]), tokenizer(["a", "c", "b"]))
    with pytest.raises(VocabularyMismatchError, match=r"'base' and 'small'.*id 1: 'b' / 'c'.*one family"):
        require_same_text(report, "base", "small")


def test_special_tokens_may_differ_and_are_not_common():
    report = compare(tokenizer(["a", "b"], ["<end>"]), tokenizer(["a", "b"], ["<stop>", "<tool>"]))
    require_same_text(report, "base", "small")
    assert set(report.special_differences) == {2, 3}
    assert report.common == {0, 1}
    assert "2 special tokens differ" in report.describe()
