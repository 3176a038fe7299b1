from langchain_eft.teaching.verdict import SweepPoint, recommend


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


def test_a_behavior_that_never_shows_still_has_a_recommendation():
    assert recommend(points(*enumerate([(0, 1), (0, 1), (0, 1)])))[0] == 0.25
