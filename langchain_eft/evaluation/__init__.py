"""Evaluation of systems: tasks, scorers, judges, and statistics of the results.

Nothing here imports torch.
"""

from __future__ import annotations

from langchain_eft.evaluation.agreement import JudgeAgreement, agreement
from langchain_eft.evaluation.cases import Answer, Case, Score, Scorer
from langchain_eft.evaluation.errors import EvaluationError, MissingDataError
from langchain_eft.evaluation.frontier import Frontier, frontier
from langchain_eft.evaluation.instructions import FollowsInstructions
from langchain_eft.evaluation.judges import (
    FACTUALITY,
    HARMLESSNESS,
    HELPFULNESS,
    RUBRICS,
    Judge,
    PairwiseJudge,
    Preference,
    Rubric,
)
from langchain_eft.evaluation.plots import plot_bars, plot_frontier, plot_sweep
from langchain_eft.evaluation.preferences import PrefersChosen
from langchain_eft.evaluation.results import Cell, Evaluation, SystemComparison
from langchain_eft.evaluation.runner import Runner
from langchain_eft.evaluation.statistics import Estimate, difference, estimate, mean, normalized_gain, share
from langchain_eft.evaluation.systems import (
    System,
    base_alone,
    gated,
    interpolation,
    mixed,
    nudged,
    reference_alone,
    small_alone,
    strength_sweep,
    top_p_sweep,
    tuned_alone,
    weight_sweep,
)
from langchain_eft.evaluation.tasks import (
    BUILT_IN,
    Task,
    benign,
    capitals,
    disguised,
    harmful,
    instructions,
    load_task,
    look_alikes,
    preferences,
    tool_calls,
)
from langchain_eft.evaluation.text_scorers import Length, Matches, Mentions, Refuses
from langchain_eft.evaluation.tool_calls import CallsExactly

__all__ = [
    "BUILT_IN",
    "FACTUALITY",
    "HARMLESSNESS",
    "HELPFULNESS",
    "RUBRICS",
    "Answer",
    "CallsExactly",
    "Case",
    "Cell",
    "Estimate",
    "Evaluation",
    "EvaluationError",
    "FollowsInstructions",
    "Frontier",
    "Judge",
    "JudgeAgreement",
    "Length",
    "Matches",
    "Mentions",
    "MissingDataError",
    "PairwiseJudge",
    "Preference",
    "PrefersChosen",
    "Refuses",
    "Rubric",
    "Runner",
    "Score",
    "Scorer",
    "System",
    "SystemComparison",
    "Task",
    "agreement",
    "base_alone",
    "benign",
    "capitals",
    "difference",
    "disguised",
    "estimate",
    "frontier",
    "gated",
    "harmful",
    "instructions",
    "interpolation",
    "load_task",
    "look_alikes",
    "mean",
    "mixed",
    "normalized_gain",
    "nudged",
    "plot_bars",
    "plot_frontier",
    "plot_sweep",
    "preferences",
    "reference_alone",
    "share",
    "small_alone",
    "strength_sweep",
    "tool_calls",
    "top_p_sweep",
    "tuned_alone",
    "weight_sweep",
]
