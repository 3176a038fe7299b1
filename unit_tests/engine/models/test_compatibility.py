"""Models that the engine cannot decode with are refused with the reason."""

import pytest
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.engine.models.families import HEADS, configuration
from unit_tests.tiny import tokenizer


def test_a_model_with_recurrent_state_is_refused(tmp_path):
    config = MambaConfig(vocab_size=len(tokenizer()), hidden_size=16, state_size=4, num_hidden_layers=2)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"recurrent|only state|attn|attention"):
        Engine(Recipe(base=str(tmp_path)))


def test_a_window_of_which_attention_is_not_told_is_refused(tmp_path):
    config = configuration("phimoe", {**HEADS, "sliding_window": 8, "num_local_experts": 4})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"layer 0 shows 8 positions, but the layer asks .* all"):
        Engine(Recipe(base=str(tmp_path)))
