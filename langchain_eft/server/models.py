"""Mixtures as models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.server.keys import Caller
from langchain_eft.server.request_record import RequestRecord
from langchain_eft.server.serving import Serving


def requested_mixture(
    serving: Serving,
    caller: Caller,
    record: RequestRecord,
    model: str,
    mixture: Mapping[str, Any] | None,
    upscale_strength: float | None,
) -> Mixture:
    """The mixture of a request, which its caller may use."""
    requested = serving.llm.active_mixture if mixture is None else Mixture.of(mixture)
    strength = serving.llm.upscale_strength if upscale_strength is None else upscale_strength
    record.model, record.mixture, record.upscale_strength = model, requested.as_json(), strength
    caller.policy.check(requested, strength)
    return requested
