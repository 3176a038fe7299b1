"""Memory for weights in the order of their use."""

from langchain_eft.engine.kernels.arena import Arena


def test_parts_follow_one_another_at_lines_of_the_cache():
    arena = Arena()
    first, second, third = arena.take(100), arena.take(1), arena.take(64)
    assert [len(part) for part in (first, second, third)] == [100, 1, 64]
    assert first.data_ptr() % 64 == 0
    assert [second.data_ptr() - first.data_ptr(), third.data_ptr() - second.data_ptr()] == [128, 64]


def test_parts_that_are_larger_than_what_is_left():
    arena = Arena()
    arena.take(100)
    large = arena.take(1 << 26)
    assert len(large) == 1 << 26
    assert large.data_ptr() % 64 == 0
