"""Calls prepared without an engine: a tokenizer and parameters are enough."""

from types import SimpleNamespace

from langchain_core.messages import HumanMessage

from langchain_eft.chat.parameters import DecodingParameters
from langchain_eft.chat.prepare import PreparedCall, prepare_call
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture

DECODING = DecodingParameters(
    model="org/base",
    mixture=Mixture(),
    sampling={},
    max_tokens=64,
    shrink=False,
    stop=(),
    timeout=None,
    fields={"answer_prefix": ()},
)
DEFAULTS = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": None,
    "stream_usage": True,
    "chat_template_kwargs": {},
    "sanitize_control_tokens": True,
}


def prepared(
    tokenizer, messages=("hi",), *, decoding=DECODING, holds_calls=True, **parameters
) -> PreparedCall:
    """A call of a recipe without behaviors; strings are messages of the user."""
    recipe = Recipe(base="org/base")
    engine = SimpleNamespace(
        tokenizer=tokenizer,
        recipe=recipe,
        window=4096,
        max_output_tokens=lambda *_: 1024,
        holds_calls=holds_calls,
    )
    conversation = [HumanMessage(m) if isinstance(m, str) else m for m in messages]
    return prepare_call(engine, conversation, decoding, {**DEFAULTS, **parameters})
