"""Values that a run's `configurable` has for a model on which nobody made these fields configurable."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.notation import as_mapping

_NAMES = ("mixture", "upscale_strength", "upscale_top_p", "speculation")
"""Fields that models of other packages do not have: a graph may mean its `temperature` for another model."""


def refuse_ignored(model: Any, config: RunnableConfig | None) -> None:
    """Refuse a config that would set a field of the model, and has no effect on it.

    `configurable_fields` makes a model with the value of the config: there the two are the same.

    Args:
        model: A chat model.
        config: That of the call. What it inherits from a graph or chain counts, too.

    Raises:
        RequestError: With the way to make the field configurable.
    """
    configurable = ensure_config(config).get("configurable", {})
    for name in _NAMES:
        if name in configurable and not _same(configurable[name], getattr(model, name)):
            raise RequestError(
                f"configurable={{{name!r}: {shown(configurable[name])}}} has no effect on this model: make "
                f"the field configurable, `llm.configurable_fields({name}=ConfigurableField(id={name!r}))`, "
                f"or give `{name}` as a parameter of the call."
            )


def _same(given: Any, own: Any) -> bool:
    if given == own:
        return True
    with suppress(ValueError):  # what is no mixture is another value
        return Mixture.of(as_mapping(given)) == Mixture.of(own)
    return False
