"""What a caller may ask for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from langchain_eft.engine.recipe.mixture import Mixture


class Policy(BaseModel):
    """Which mixtures a caller may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def check(self, mixture: Mixture, upscale_strength: float) -> None:
        """Refuse a mixture outside the policy."""

    def range(self, behavior: str) -> tuple[float, float] | None:
        """Smallest and largest weight of a behavior; None where it may not be used at all."""
        return (0.0, 2.0)
