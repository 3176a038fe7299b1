import pytest

from langchain_eft.teaching.verdict import SweepPoint, is_learned, recommend


def points(*kept):
    return [SweepPoint(i / 4, behavior, knowledge, behavior, knowledge) for i, (behavior, knowledge) in kept]


def test_the_smallest_weight_that_keeps_nearly_the_best_is_recommended():
    swept = points(*enumerate([(0, 1), (0.2, 1), (0.9, 0.95), (1, 0.88), (1, 0.5)]))
    weight, bounds = recommend(swept)
    assert weight == 0.5
    assert bounds == (0.5, 0.75)


def test_weight_0_is_never_recommended():
    weight, _ = recommend(points(*enumerate([(1, 1), (0.1, 0.5), (0.2, 0.5)])))
    assert weight == 0.5


def test_more_than_all_counts_as_all():
    swept = points(*enumerate([(0, 1), (1, 1), (3, 1)]))
    assert recommend(swept) == (0.25, (0.25, 0.5))


def test_a_behavior_that_no_weight_shows_has_no_recommendation():
    assert recommend(points(*enumerate([(0, 1), (0, 1), (0, 1)]))) is None


def test_a_base_that_knows_nothing_has_nothing_to_lose():
    swept = [SweepPoint(weight, behavior, 0, behavior, None) for weight, behavior in ((0, 0), (0.5, 1))]
    assert recommend(swept) == (0.5, (0.5, 0.5))


@pytest.mark.parametrize(
    ("tuned", "reference", "learned"),
    [
        ([1] * 16, [0] * 16, True),
        ([1] * 5 + [0] * 11, [0] * 16, True),
        ([0] * 16, [0] * 16, False),
        ([1] * 16, [1] * 16, False),  # the reference does it anyway
        ([1] * 2 + [0] * 14, [0] * 16, False),  # no more than chance
        ([1] * 8 + [0] * 8, [0] * 8 + [1] * 8, False),
        ([1, 1], [0, 0], True),
        ([1, 0], [0, 0], False),
        ([1, None, 1], [0, 0, None], False),  # one answer is too few
        ([None], [None], False),
    ],
)
def test_a_behavior_is_learned_if_its_reference_shows_it_less(tuned, reference, learned):
    assert is_learned(tuned, reference) == learned
