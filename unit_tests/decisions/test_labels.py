"""Labels become the tokens with which an answer would begin, whatever template and tokenizer do around it."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from langchain_eft.decisions.labels import LabelTokens
from langchain_eft.engine.errors import RequestError
from unit_tests.tiny import tokenizer

SPACED = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' }}{{ ' ' + m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TRIMMED = SPACED.replace("m['content']", "(m['content'] | trim)")
THOUGHTFUL = SPACED.replace("<assistant>", "<assistant> <user>")


@pytest.fixture
def words():
    return tokenizer()


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer that begins words with a space of its own, as Llama 2's."""
    vocab = ["<end>", "<user>", "<assistant>", "▁", "▁Yes", "Yes", "▁No", "No", "▁?", "?"]
    raw = Tokenizer(models.Unigram([(token, -1.0) for token in vocab], unk_id=3))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end>",  # noqa: S106
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=SPACED,
    )


def labelled(words, labels, end=None, **kwargs):
    return LabelTokens(words, {}, **kwargs).of_question("The question 'q'", labels, end=end)


def test_tokens_are_those_that_follow_the_opening(words):
    plain = words("billing", add_special_tokens=False).input_ids
    assert labelled(words, ["billing", "x"])[0] == tuple(plain)
    words.chat_template = SPACED
    spaced = words(" billing", add_special_tokens=False).input_ids
    assert labelled(words, ["billing", "x"])[0] == tuple(spaced)
    words.chat_template = TRIMMED
    assert labelled(words, [" billing ", "x"])[0] == tuple(spaced)


def test_a_space_is_part_of_the_first_token_where_the_template_writes_one():
    words = metaspace()
    assert [words.convert_ids_to_tokens(ids) for ids in labelled(words, ["Yes", "No"])] == [["▁Yes"], ["▁No"]]


def test_a_template_that_opens_answers_otherwise_leaves_the_plain_tokens(words):
    words.chat_template = THOUGHTFUL
    assert labelled(words, ["billing", "x"])[0] == tuple(words("billing", add_special_tokens=False).input_ids)


def test_the_end_counts_where_one_label_begins_another(words):
    def ids(text):
        return tuple(words(text, add_special_tokens=False).input_ids)

    assert labelled(words, ["New", "Old"]) == [ids("New"), ids("Old")]
    assert labelled(words, ["Old", "New", "New York"]) == [(*ids(x), 0) for x in ("Old", "New", "New York")]
    assert labelled(words, ["New", "New York"], end=False) == [ids("New"), ids("New York")]
    assert labelled(words, ["New", "Old"], end=True) == [(*ids("New"), 0), (*ids("Old"), 0)]


def test_the_end_may_be_a_special_token_without_a_name(words):
    words.add_tokens([AddedToken("<turn>", special=True)])
    words.chat_template = SPACED.replace("<end>", "<turn>")
    assert labelled(words, ["New"], end=True)[0][-1] == words.convert_tokens_to_ids("<turn>")


def test_labels_in_the_same_tokens_are_refused(words):
    words.chat_template = TRIMMED
    with pytest.raises(RequestError, match=r"question 'q'.*'a '.*same tokens|question 'q'.*'a'.*same tokens"):
        labelled(words, ["a", "b", "a "])


def test_control_tokens_in_labels_are_text(words):
    ids = labelled(words, ["<end>", "x"])[0]
    assert words.eos_token_id not in ids
    assert words.decode(ids) == "<end>"
    assert labelled(words, ["<end>", "x"], sanitize_control_tokens=False)[0] == (words.eos_token_id,)
