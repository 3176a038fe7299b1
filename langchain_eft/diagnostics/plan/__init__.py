"""Plans from configurations alone: memory and speed of a recipe on one machine, or in vLLM on many cards."""

from langchain_eft.diagnostics.plan.cluster_plan import ClusterPlan, Step, plan_cluster, sharded_models
from langchain_eft.diagnostics.plan.hardware import CARDS, Card, Cluster
from langchain_eft.diagnostics.plan.memory import Part
from langchain_eft.diagnostics.plan.recipe_plan import RecipePlan, plan_recipe
from langchain_eft.diagnostics.plan.sharded_model import BaseFormat, ShardedModel
from langchain_eft.diagnostics.plan.speed import Speed
from langchain_eft.diagnostics.plan.step_time import (
    Assumptions,
    StepTime,
    prompt_seconds,
    step_time,
)

__all__ = [
    "CARDS", "Assumptions", "BaseFormat", "Card", "Cluster", "ClusterPlan", "Part", "RecipePlan",
    "ShardedModel", "Speed", "Step", "StepTime", "plan_cluster", "plan_recipe", "prompt_seconds",
    "sharded_models", "step_time",
]  # fmt: skip
