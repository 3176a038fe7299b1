"""Mixtures as models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.server.keys import Caller
from langchain_eft.server.request_log import RequestRecord
from langchain_eft.server.serving import Serving


def requested_mixture(
    serving: Serving, caller: Caller, record: RequestRecord, model: str, mixture: Mapping[str, Any] | None
) -> Mixture:
    """The mixture of a request, which its caller may use."""
    requested = serving.llm.active_mixture if mixture is None else Mixture.of(mixture)
    caller.policy.check(requested)
    record.model, record.mixture = model, requested.as_json()
    return requested
