"""Calls prepared without an engine: a tokenizer and parameters are enough."""

from types import SimpleNamespace

from langchain_core.messages import HumanMessage

from langchain_eft.chat.answer_form import AnswerForm
from langchain_eft.chat.parameters import DecodingParameters
from langchain_eft.chat.prepare import CallOptions, PreparedCall, prepare_call
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture

DECODING = DecodingParameters(
    model="org/base",
    mixture=Mixture(),
    sampling={},
    max_tokens=64,
    shrink=False,
    timeout=None,
)


def prepared(
    tokenizer, messages=("hi",), *, decoding=DECODING, holds_calls=True, n=1, **parameters
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
    options = CallOptions(AnswerForm.of(parameters), n, None, True, {}, True)
    return prepare_call(engine, conversation, decoding, options)
