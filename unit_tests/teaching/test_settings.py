import pytest

from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.settings import Settings


def test_defaults_follow_the_amount_of_data_and_the_width():
    few, many = (Settings().resolved(n, 576, preferences=False) for n in (50, 50_000))
    assert (few.rank, few.steps) == (8, 60)
    assert (many.rank, many.steps) == (32, 1000)
    wide = Settings().resolved(50, 4096, preferences=False)
    assert wide.learning_rate < few.learning_rate == 1e-3


def test_given_values_stay():
    given = Settings(rank=3, learning_rate=0.5, steps=7, batch_size=2, seed=5)
    assert given.resolved(1000, 64, preferences=True) == given


@pytest.mark.parametrize("name", ["rank", "learning_rate", "steps", "batch_size", "beta"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_values_that_train_nothing_are_refused(name, value):
    with pytest.raises(TeachingError, match=f"{name} must be a positive number"):
        Settings(**{name: value})
