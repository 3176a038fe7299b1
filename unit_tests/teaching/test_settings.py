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
    given = Settings(
        rank=3, learning_rate=0.5, steps=7, batch_size=2, seed=5, start="x", precision="bfloat16"
    )
    assert given.resolved(1000, 64, preferences=True) == given


@pytest.mark.parametrize("name", ["rank", "learning_rate", "steps", "batch_size", "beta"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_values_that_train_nothing_are_refused(name, value):
    with pytest.raises(TeachingError, match=f"{name}=.* must be a positive number"):
        Settings(**{name: value})


def test_the_precision_follows_the_device():
    assert [Settings().resolved(9, 64, preferences=False, on_gpu=gpu).precision for gpu in (False, True)] == [
        "float32",
        "bfloat16",
    ]


def test_an_unknown_precision_is_refused():
    with pytest.raises(TeachingError, match="precision must be 'float32' or 'bfloat16', got 'int8'"):
        Settings(precision="int8")
