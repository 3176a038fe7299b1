"""Context windows by a configuration, as transformers reads it or as its file has it."""

from types import SimpleNamespace

import pytest

from langchain_eft.engine.models.window import context_window


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({}, 2**20),
        ({"max_position_embeddings": 1024}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": {"rope_type": "linear", "factor": 2}}, 1024),
        ({"max_position_embeddings": 1024, "rope_parameters": {"rope_type": "dynamic"}}, 1024),
        (
            {
                "max_position_embeddings": 1024,
                "rope_parameters": {
                    "full_attention": {"rope_type": "dynamic", "original_max_position_embeddings": 256},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            256,
        ),
        (
            {
                "max_position_embeddings": 1024,
                "original_max_position_embeddings": 128,
                "rope_scaling": {"type": "longrope"},
            },
            128,
        ),
    ],
)
def test_frequencies_that_depend_on_the_batch_limit_the_window(config, window):
    assert context_window(SimpleNamespace(**config)) == window
