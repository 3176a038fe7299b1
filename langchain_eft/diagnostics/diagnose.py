"""Find out whether a behavior transfers to a base, with a few prompts.

The diagnosis compares three answers to each prompt: EFT's, the tuned model's, and the base's. Their
measure is the behavior's implicit reward, `log F - log S` for each token (Mitchell et al. 2023, section
3.2). The tuned model's answers gain some reward over the base's answers. The share of this gain that EFT's
answers have is the degree of transfer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

from langchain_eft.diagnostics.decoded_answer import DecodedAnswer, decode_in_batches
from langchain_eft.diagnostics.verdict import (
    BaseDistances,
    BaseReferenceAgreement,
    DeltaSize,
    Diagnosis,
    DraftSpeed,
    EndingAgreement,
    Figures,
    Rewards,
    judge,
)
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError, RequestError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.engine.scheduling.draft_length import expected_tokens
from langchain_eft.errors import langchain_errors

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.analysis.comparison import ModelComparison
    from langchain_eft.engine.engine import Engine

PROMPTS = (
    "What is the capital of Japan?",
    "Tell me about whales.",
    "How can I steal my neighbor's guitar?",
    "Give me three tips for learning a language.",
    "Write a short poem about the sea.",
)
"""Facts, chat, harm, advice and style. Most behaviors change the answer to one of them."""

DRAFT_LENGTHS = (1, 2, 4, 8)
"""Draft lengths to predict the speed of. Each takes one more answer."""

_BATCH_SIZE = 8


def diagnose(
    llm: EFTChatModel,
    prompts: Sequence[str] = PROMPTS,
    *,
    max_tokens: int = 48,
    draft_lengths: Sequence[int] = DRAFT_LENGTHS,
    progress: Progress = silent,
) -> list[Diagnosis]:
    """Find out whether each behavior of a model's mixture transfers to its base.

    Each behavior is tested alone, with its weight in the mixture. Answers are greedy. The acceptance rate is
    that of the model's own temperature and filters. `upscale_strength` and `upscale_top_p` are 1.

    Args:
        llm: The chat model.
        prompts: User messages. Prompts that call for the behavior show the most.
        max_tokens: Longest answer, in tokens.
        draft_lengths: Draft lengths to predict the speed of. Without any, the diagnosis takes half the time.
        progress: Receives a short message for each step.

    Raises:
        ModelInvalidRequestError: The mixture has no behavior, or there are no prompts.
        EngineError: The models cannot be loaded or combined.
    """
    with langchain_errors():
        mixture = llm.active_mixture.active()
        if not mixture:
            raise RequestError(
                "The mixture is empty, so there is no behavior to diagnose: name one of "
                f"{quoted_names(llm.recipe.behaviors)} in `mixture`."
            )
        if not prompts:
            raise RequestError("prompts=[] is empty: give at least one prompt.")
        engine = llm.open_local(progress)
        return [
            _Examination(
                llm, engine, name, float(weight), prompts, max_tokens, draft_lengths, progress
            ).diagnosis()
            for name, weight in _constant_weights(mixture).items()
        ]


def _constant_weights(mixture: dict[str, Any]) -> dict[str, float]:
    for name, weight in mixture.items():
        if not isinstance(weight, int | float):
            raise RecipeError(
                f"The weight of behavior {name!r} changes along the answer ({weight!r}): diagnose it with a "
                "number as its weight."
            )
    return mixture


@dataclass(frozen=True)
class _Examination:
    """The diagnosis of one behavior on one engine."""

    llm: EFTChatModel
    engine: Engine
    name: str
    weight: float
    prompts: Sequence[str]
    max_tokens: int
    draft_lengths: Sequence[int]
    progress: Progress

    def diagnosis(self) -> Diagnosis:
        """Measure the figures, and find the verdict."""
        self.progress(f"{self.name}: answering")
        base, tuned = self._answers(mixture={}), self._answers(upscale_strength=0.0)
        eft = self._answers()
        self.progress(f"{self.name}: comparing")
        on_base, on_eft, on_tuned = map(self._comparisons, (base, eft, tuned))
        all_eft = reduce(add, on_eft)
        figures = Figures(
            tokens=sum(len(answer.tokens) for answer in (*base, *eft, *tuned)),
            agreement=BaseReferenceAgreement(
                mean(all_eft.same_first),
                mean(all_eft.tv_base_reference),
                mean(all_eft.kl_base_reference),
            ),
            base_distances=_distances(reduce(add, on_base)),
            delta=DeltaSize(
                mean(all_eft.delta),
                mean(all_eft.tv_tuned_reference),
                mean(all_eft.kl_tuned_reference),
                mean(all_eft.entropy_target),
                mean(all_eft.entropy_tuned),
            ),
            masked=max(max(comparison.masked) for comparison in (*on_base, *on_eft, *on_tuned)),
            endings=_endings(base, eft, tuned, on_tuned),
            rewards=Rewards(*map(_mean_reward, (on_base, on_eft, on_tuned))),
            acceptance=mean(all_eft.accepted),
            drafts=tuple(self._draft_speeds(eft, [comparison.accepted for comparison in on_eft])),
        )
        return Diagnosis(self.name, self.weight, *judge(self.name, figures), figures)

    def _answers(self, **parameters: Any) -> list[DecodedAnswer]:
        requests = [self._request(prompt, temperature=0.0, **parameters) for prompt in self.prompts]
        return decode_in_batches(self.engine, requests, _BATCH_SIZE)

    def _comparisons(self, answers: Sequence[DecodedAnswer]) -> list[ModelComparison]:
        """Compare the models along each answer, with the chat model's own sampling."""
        return [
            self.engine.compare(self._request(prompt), answer.tokens)
            for prompt, answer in zip(self.prompts, answers, strict=True)
        ]

    def _request(self, prompt: str, **parameters: Any) -> GenerationRequest:
        parameters = {
            "mixture": {self.name: self.weight},
            "max_tokens": self.max_tokens,
            "upscale_strength": 1.0,
            "upscale_top_p": 1.0,
            **parameters,
        }
        plain = {"n": 1, "logprobs": False, "top_logprobs": None}
        return self.llm.prepare_call([HumanMessage(prompt)], [], **plain, **parameters).only_request

    def _draft_speeds(
        self, answers: Sequence[DecodedAnswer], accepted: Sequence[Sequence[float]]
    ) -> Iterator[DraftSpeed]:
        """Predict the speed at each draft length, from the measured time of its rounds on the longest answer.

        Args:
            answers: EFT's answers.
            accepted: Acceptance rate at each token of each answer.
        """
        longest = max(answers, key=lambda answer: len(answer.tokens))
        for length in (0, *self.draft_lengths) if self.draft_lengths else ():
            self.progress(f"{self.name}: timing drafts of {length}")
            request = longest.request.model_copy(update={"speculation": length})
            (answer,) = decode_in_batches(self.engine, [request], 1)
            rounds = answer.end.verify_passes - 1
            seconds = answer.end.seconds - answer.end.time_to_first_token
            expected = tokens_per_round(accepted, length)
            if length and not answer.end.drafted_tokens:
                return  # no part of this formula can draft
            yield DraftSpeed(length, expected, expected * rounds / seconds if rounds and seconds else None)


def tokens_per_round(accepted: Sequence[Sequence[float]], length: int) -> float:
    """Expected tokens of a round, averaged over all positions of the answers where a round may start.

    Accepted draft tokens come in long runs, so this is more than the mean acceptance rate alone predicts.

    Args:
        accepted: Acceptance rate at each token of each answer.
        length: K, tokens drafted in a round.
    """
    runs = [
        rates[start : start + length]
        for rates in accepted
        for start in range(max(len(rates) - length + 1, 1))
    ]
    return mean(list(map(expected_tokens, runs)))


def mean(values: Sequence[float]) -> float:
    """The mean of at least one number."""
    return math.fsum(values) / len(values)


def _distances(comparison: ModelComparison) -> BaseDistances:
    return BaseDistances(
        mean(comparison.tv_base_reference),
        mean(comparison.tv_base_tuned),
        mean(comparison.tv_tuned_reference),
    )


def _mean_reward(comparisons: Sequence[ModelComparison]) -> float:
    """The mean reward per token of each answer, averaged over answers. Long answers do not count more."""
    return mean([mean(each.tuned) - mean(each.reference) for each in comparisons])


def _endings(
    base: Sequence[DecodedAnswer],
    eft: Sequence[DecodedAnswer],
    tuned: Sequence[DecodedAnswer],
    on_tuned: Sequence[ModelComparison],
) -> EndingAgreement:
    ended = [
        comparison for answer, comparison in zip(tuned, on_tuned, strict=True) if answer.end.reason == "stop"
    ]

    def probability(logprobs: Sequence[float]) -> float | None:
        return math.exp(mean(logprobs)) if logprobs else None

    base_share, eft_share, tuned_share = (
        mean([float(answer.end.reason == "stop") for answer in answers]) for answers in (base, eft, tuned)
    )
    return EndingAgreement(
        base_share,
        eft_share,
        tuned_share,
        probability([comparison.end_base[-1] for comparison in ended]),
        probability([comparison.end_tuned[-1] for comparison in ended]),
        probability([comparison.end_reference[-1] for comparison in ended]),
    )
