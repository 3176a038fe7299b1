"""A text that no window holds is refused by its beginning."""

import pytest

from langchain_eft.chat.overlong import refuse_overlong
from langchain_eft.engine.errors import ContextWindowError
from unit_tests.tiny import tokenizer


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self):
        self.read, self._tokenizer = 0, tokenizer()

    def __call__(self, text, **options):
        self.read += len(text)
        return self._tokenizer(text, **options)


def test_of_a_long_text_no_more_is_tokenized_than_the_window_holds():
    counting = Counting()
    with pytest.raises(ContextWindowError, match=r"more than \d+ tokens .* window is 1000 tokens: shorten"):
        refuse_overlong(counting, "a" * 8_000_000, window=1000)
    assert counting.read < 100_000


@pytest.mark.parametrize(("length", "window"), [(60_000, 10), (300_000, 300_000), (300_000, None)])
def test_a_text_that_may_fit_is_left_to_the_engine(length, window):
    refuse_overlong(tokenizer(), "a" * length, window)
