"""The order of examples, checked by what it promises."""

import random

import pytest

from langchain_eft.teaching.order import ordered

ROWS = [
    {"input_ids": [i] * length} for i, length in enumerate(random.Random(3).choices(range(1, 90), k=1003))
]


def steps_of(order, batch_size):
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 125), (8, 400), (1, 30), (2000, 2)])
def test_every_step_has_its_rows_and_none_occurs_again_before_all_have(batch_size, steps):
    order = ordered(ROWS, batch_size, steps, seed=0)
    assert len(order) == batch_size * steps
    numbers = [row["input_ids"][0] for row in order]
    for start in range(0, len(numbers), len(ROWS)):
        epoch = numbers[start : start + len(ROWS)]
        assert len(set(epoch)) == len(epoch)


def test_batches_are_of_similar_length_and_in_random_order():
    batches = steps_of(ordered(ROWS, 8, 125, seed=0), 8)
    lengths = [[len(row["input_ids"]) for row in batch] for batch in batches]
    padded = sum(8 * max(each) for each in lengths)
    assert sum(map(sum, lengths)) > 0.95 * padded
    firsts = [max(each) for each in lengths]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))


def test_the_seed_gives_the_order():
    first, again, other = (ordered(ROWS, 8, 20, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_pairs_are_as_long_as_all_their_parts():
    pairs = [{"prompt_ids": [0] * 9, "chosen_ids": [0], "rejected_ids": [0]}] * 4
    short = [{"prompt_ids": [0], "chosen_ids": [0], "rejected_ids": [0]}] * 4
    batches = steps_of(ordered([p for both in zip(pairs, short, strict=True) for p in both], 4, 2, 0), 4)
    assert sorted(batches, key=lambda batch: len(batch[0]["prompt_ids"])) == [short, pairs]
