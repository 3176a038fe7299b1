"""Models that the engine cannot decode with are refused with the reason."""

import pytest
from transformers import MambaConfig, MambaForCausalLM

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.tiny import tokenizer


def test_a_model_with_recurrent_state_is_refused(tmp_path):
    config = MambaConfig(vocab_size=len(tokenizer()), hidden_size=16, state_size=4, num_hidden_layers=2)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"recurrent|only state|attn|attention"):
        Engine(Recipe(base=str(tmp_path)))
