"""Chat models of other providers, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import ValidationError

from langchain_eft.engine.error_text import describe
from langchain_eft.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def hosted(name: str, option: str) -> BaseChatModel:
    """Build a chat model of any provider by its name, PROVIDER:MODEL.

    Args:
        name: The name.
        option: Where it was given, for the error message.

    Raises:
        EvaluationError: LangChain cannot build such a model, for example because its key is missing.
    """
    try:
        model: BaseChatModel = import_module("langchain.chat_models").init_chat_model(name)
    except Exception as error:  # providers raise errors of many kinds
        reason = describe(error) if isinstance(error, ValidationError) else str(error)
        raise EvaluationError(
            f"{option} {name!r} cannot be used ({reason}): write PROVIDER:MODEL, for example openai:gpt-5, "
            "with langchain and the provider's package installed and the provider's key in the environment."
        ) from error
    return model
