"""What an operator sets."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.server.policy import Policy


class ServerSettings(BaseModel):
    """Everything that an operator sets, besides the model itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    served_model_name: str | None = None
    """Name of the model in requests; by default that of the preset, or the last part of its path."""

    mixtures: dict[str, Mixture] = Field(default_factory=dict)
    """Mixtures that have a model name of their own."""

    policy: Policy = Field(default_factory=Policy)
    """What callers may ask for where their key says nothing else."""

    log_texts: bool = False
    """Whether prompts and answers are logged."""

    drain_seconds: float = 30.0
    """Seconds that running answers get after SIGTERM."""
