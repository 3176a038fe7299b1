"""Heads of keys and values, from configurations."""

import pytest

from langchain_eft.engine.models.heads import kv_heads
from unit_tests.engine.models.families import ALTERNATING, GROUPED, SLIDING, configuration


@pytest.mark.parametrize(
    ("kind", "extra", "heads"),
    [
        ("llama", GROUPED, 2),
        ("gpt2", {}, 4),
        ("gemma4_text", {**SLIDING, **ALTERNATING, "attention_k_eq_v": True}, 2),
        (
            "gemma4_text",
            {**SLIDING, **ALTERNATING, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
            1,
        ),
    ],
    ids=["grouped", "all", "alike", "fewer"],
)
def test_the_fewest_heads_of_a_layer_count(kind, extra, heads):
    assert kv_heads(configuration(kind, extra)) == heads
