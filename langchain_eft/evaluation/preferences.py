"""Preference accuracy without generation: does the implicit reward of a mixture prefer the better answer?

The small models of a recipe have the reward `r = sum_i w_i (log F_i - log S_i)` of an answer given its prompt
(Mitchell et al. 2023, section 3.2; Rafailov et al. 2023, equation 5). The base is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.runnables import Runnable

from langchain_eft.evaluation.cases import Answer, Case, Score
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.systems import System, is_emulated


def compare_likelihoods(
    system: System,
    case: Case,
    max_tokens: int | None = None,  # noqa: ARG001  (nothing is written)
    seed: int | None = None,  # noqa: ARG001
) -> Answer:
    """The rewards of the chosen and the rejected answer, in the details of an empty answer.

    Raises:
        EvaluationError: A system that is not an `EFTChatModel`, or whose mixture is empty.
    """
    from langchain_eft.rewards import EFTRewardScorer

    llm: Runnable[object, object] = system.runnable
    if not is_emulated(llm) or not llm.active_mixture.active():
        what = "an empty mixture" if is_emulated(llm) else type(llm).__name__
        raise EvaluationError(
            f"The system {system.name!r} has no implicit reward ({what}): preferences take an EFTChatModel "
            "with at least one behavior."
        )
    rewards = {"chosen": 0.0, "rejected": 0.0}
    answers = [case.expected[name] for name in rewards]
    for behavior, weight in llm.active_mixture.active().items():
        if not isinstance(weight, int | float):
            raise EvaluationError(
                f"The weight of {behavior!r} changes over the answer ({weight}): a reward takes one number."
            )
        scorer = EFTRewardScorer(llm, behavior, beta=weight)
        scores = scorer.invoke({"prompt": list(case.messages), "answers": answers})
        rewards = {name: rewards[name] + score for name, score in zip(rewards, scores, strict=True)}
    return Answer("", details=rewards)


@dataclass(frozen=True)
class PrefersChosen:
    """Whether the chosen answer has the higher reward; equal rewards count half.

    Attributes:
        name: Name of the metric.
    """

    name: str = "prefers chosen"
    unit: str = "share"
    higher_is_better: bool | None = True

    def score(self, case: Case, answer: Answer) -> Score:  # noqa: ARG002
        """1 if the chosen answer has the higher reward, 0.5 for equal rewards, else 0."""
        margin = answer.details["chosen"] - answer.details["rejected"]
        return Score(0.5 if margin == 0 else float(margin > 0), f"margin {margin:.2f} nats")
