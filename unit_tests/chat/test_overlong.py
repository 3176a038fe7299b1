"""A text that no window holds is refused by its beginning."""

import pytest

from langchain_eft.chat.overlong import refuse_overlong
from langchain_eft.engine.errors import ContextWindowError
from unit_tests.tiny import tokenizer


class Counting:
    """A tokenizer that counts the bytes it is given."""

    def __init__(self):
        self.read, self.most, self._tokenizer = 0, 0, tokenizer()

    def __call__(self, text, **options):
        size = len(text.encode())
        self.read, self.most = self.read + size, max(self.most, size)
        return self._tokenizer(text, **options)


@pytest.mark.parametrize("letter", ["a", "\N{ROCKET}"])
@pytest.mark.parametrize("window", [1000, 10_000])
def test_of_a_long_text_small_pieces_are_tokenized_and_no_more_than_the_window_holds(letter, window):
    counting = Counting()
    with pytest.raises(ContextWindowError, match=rf"more than \d+ tokens .* is {window} tokens: shorten"):
        refuse_overlong(counting, letter * 2_000_000, window)
    assert counting.most <= 2**14  # longer ones make other threads wait
    assert counting.read <= 10 * window + counting.most


@pytest.mark.parametrize(("length", "window"), [(4000, 10), (300_000, 300_000), (300_000, None)])
def test_a_text_that_may_fit_is_left_to_the_engine(length, window):
    refuse_overlong(tokenizer(), "a" * length, window)
