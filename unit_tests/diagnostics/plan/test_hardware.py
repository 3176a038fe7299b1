"""Clusters by their notation."""

import pytest

from langchain_eft.diagnostics.plan import CARDS, Cluster
from langchain_eft.engine.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "name", "count"), [("8xH200", "H200", 8), ("1xb200", "B200", 1), (" 16xH100 ", "H100", 16)]
)
def test_a_cluster_is_parsed(text, name, count):
    cluster = Cluster.parse(text)
    assert (cluster.card, cluster.count) == (CARDS[name], count)
    assert cluster.name == f"{count}x{name}"
    assert cluster.in_one_node == (count <= 8)


@pytest.mark.parametrize("text", ["H200", "0xH200", "8 H200", "", "x8"])
def test_another_text_is_refused_with_an_example(text):
    with pytest.raises(RecipeError, match="such as '8xH200'"):
        Cluster.parse(text)


def test_another_card_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="'A100' is unknown: use 'B200', 'H100', 'H200'"):
        Cluster.parse("8xA100")


def test_newer_cards_have_more_of_everything():
    for old, new in (("H100", "H200"), ("H200", "B200")):
        assert CARDS[old].memory < CARDS[new].memory
        assert CARDS[old].bytes_per_second < CARDS[new].bytes_per_second
        assert CARDS[old].flops <= CARDS[new].flops
    assert 79 < CARDS["H100"].memory / 2**30 < 80
