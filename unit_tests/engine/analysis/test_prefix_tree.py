"""Texts in a tree: every distinct beginning has one number, and numbers lead back to the text."""

import random

from langchain_eft.engine.analysis.prefix_tree import PrefixTree


def test_every_distinct_beginning_has_one_number():
    rng = random.Random(0)
    texts = [[rng.randrange(3) for _ in range(rng.randrange(1, 8))] for _ in range(200)]
    tree = PrefixTree()
    numbers = [tree.add(text) for text in texts]
    beginnings = {tuple(text[: i + 1]) for text in texts for i in range(len(text))}
    assert len(tree) == len(beginnings)
    found = {
        tuple(text[: i + 1]): own[i]
        for text, own in zip(texts, numbers, strict=True)
        for i in range(len(text))
    }
    assert sorted(found.values()) == list(range(len(tree)))
    for text, own in zip(texts, numbers, strict=True):
        assert own == [found[tuple(text[: i + 1])] for i in range(len(text))]


def test_runs_hold_every_token_once_behind_their_texts():
    rng = random.Random(1)
    tree, text_of = PrefixTree(), {}
    for _ in range(100):
        text = [rng.randrange(3) for _ in range(rng.randrange(1, 9))]
        text_of |= {number: text[: i + 1] for i, number in enumerate(tree.add(text))}
    seen = []
    for run in tree.runs:
        path = [number for part in run.path for number in part]
        own = path[run.position :]
        assert [text_of[number][-1] for number in own] == list(run.tokens)
        assert [text_of[number] for number in path] == [text_of[path[-1]][: i + 1] for i in range(len(path))]
        assert set(path[: run.position]) <= set(seen), "a run comes after what its text begins with"
        seen += own
    assert seen == list(range(len(tree)))


def test_what_follows_a_token_is_found_again():
    tree = PrefixTree()
    end = tree.add([1, 2, 3])[-1]
    assert tree.add([4, 5], end) == [3, 4]
    assert tree.add([4, 6], end) == [3, 5]
    assert tree.add([1, 2, 3, 4, 6]) == [0, 1, 2, 3, 5]
    assert tree.add([], end) == []
    assert [run.depth for run in tree.runs] == [0, 1, 2]
