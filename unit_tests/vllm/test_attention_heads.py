"""Attention heads and the ranks that share them."""

from types import SimpleNamespace

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.vllm.attention_heads import Heads, refuse_undividable


@pytest.mark.parametrize(
    ("heads", "ranks"),
    [
        ((32, 8), {1, 2, 4, 8, 16, 32}),
        ((14, 2), {1, 2, 14}),
        ((9, 3), {1, 3, 9}),
        ((12, 12), {1, 2, 3, 4, 6, 12}),
    ],
)
def test_heads_are_shared_evenly_or_copied(heads, ranks):
    assert {n for n in range(1, 33) if Heads(*heads).divisible_by(n)} == ranks


def test_a_model_without_grouped_heads_has_as_many_of_both_kinds():
    assert Heads.of(SimpleNamespace(num_attention_heads=8)) == Heads(8, 8)
    assert Heads.of(SimpleNamespace(num_attention_heads=8, num_key_value_heads=2)) == Heads(8, 2)


def test_the_model_and_possible_sizes_are_named():
    models = {"large": Heads(64, 8), "small": Heads(14, 2)}
    refuse_undividable(models, 2)
    with pytest.raises(RecipeError, match=r"'small' has 14 attention heads .* 4 ranks .* size of 1 or 2"):
        refuse_undividable(models, 4)
