"""Plans from configurations alone: memory and speed of a recipe on one machine, or in vLLM on many cards."""

from langchain_eft.diagnostics.plan.memory import Part
from langchain_eft.diagnostics.plan.recipe_plan import RecipePlan, plan_recipe
from langchain_eft.diagnostics.plan.speed import Speed

__all__ = ["Part", "RecipePlan", "Speed", "plan_recipe"]
