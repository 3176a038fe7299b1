"""Will a behaviour transfer to a base? Measured on a few prompts, before anything larger is paid for.

Three sets of answers to the same prompts are compared: EFT's, the tuned model's own, and the base's own. What
they are worth to the behaviour is its implicit reward, `log F - log S` for each token (Mitchell et al. 2023,
section 3.2): the tuned model's answers gain some over the base's, and the behaviour has transferred as far as
EFT's answers gain the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

from langchain_eft.diagnostics.verdict import (
    Agreement,
    Delta,
    Diagnosis,
    Drafts,
    Endings,
    Figures,
    Kinship,
    Rewards,
    judge,
)
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError, RequestError
from langchain_eft.engine.events import Finished, TextDelta
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
"""Facts, chat, harm, advice, style: something for most behaviours."""

DRAFT_LENGTHS = (1, 2, 4, 8)
"""Draft lengths whose speed is predicted, which takes an answer each."""


def diagnose(
    llm: EFTChatModel,
    prompts: Sequence[str] = PROMPTS,
    *,
    max_tokens: int = 48,
    draft_lengths: Sequence[int] = DRAFT_LENGTHS,
    progress: Progress = silent,
) -> list[Diagnosis]:
    """Find out whether each behaviour of a model's mixture transfers to its base.

    Every behaviour is looked at by itself, with the weight that the mixture gives it. Answers are greedy;
    acceptance is that of the model's own temperature and filters. `upscale_strength` and `upscale_top_p` are
    left at 1.

    Args:
        llm: The chat model.
        prompts: What to ask. Prompts that call for the behaviour tell most.
        max_tokens: Longest answer, in tokens.
        draft_lengths: Draft lengths whose speed is predicted; none takes half the time.
        progress: Told what is being done.

    Raises:
        ModelInvalidRequestError: A mixture without behaviours, or no prompts.
        EngineError: Models that cannot be loaded or combined.
    """
    with langchain_errors():
        mixture = llm.active_mixture.active()
        if not mixture:
            raise RequestError(
                f"The mixture is empty, so there is no behaviour to diagnose: name one of "
                f"{quoted_names(llm.recipe.behaviors)} in `mixture`."
            )
        if not prompts:
            raise RequestError("prompts=[] is empty: give at least one.")
        engine = llm.open(progress)
        return [
            _Examination(
                llm, engine, name, float(weight), prompts, max_tokens, draft_lengths, progress
            ).diagnosis()
            for name, weight in _constant(mixture).items()
        ]


def _constant(mixture: dict[str, Any]) -> dict[str, float]:
    for name, weight in mixture.items():
        if not isinstance(weight, int | float):
            raise RecipeError(
                f"The weight of behaviour {name!r} changes along the answer ({weight!r}): diagnose it with a "
                "plain number."
            )
    return mixture


@dataclass(frozen=True)
class _Answer:
    """An answer and the request that it belongs to."""

    request: GenerationRequest
    tokens: tuple[int, ...]
    end: Finished


@dataclass(frozen=True)
class _Examination:
    """One behaviour on one engine."""

    llm: EFTChatModel
    engine: Engine
    name: str
    weight: float
    prompts: Sequence[str]
    max_tokens: int
    draft_lengths: Sequence[int]
    progress: Progress

    def diagnosis(self) -> Diagnosis:
        """Measure, then judge."""
        self.progress(f"{self.name}: answering")
        base, tuned = self._answers(mixture={}), self._answers(upscale_strength=0.0)
        eft = self._answers()
        self.progress(f"{self.name}: comparing")
        along_base, along_eft, along_tuned = map(self._along, (base, eft, tuned))
        everywhere = reduce(add, along_eft)
        figures = Figures(
            tokens=sum(len(answer.tokens) for answer in (*base, *eft, *tuned)),
            agreement=Agreement(
                mean(everywhere.same_first),
                mean(everywhere.tv_base_reference),
                mean(everywhere.kl_base_reference),
            ),
            kinship=_kinship(reduce(add, along_base)),
            delta=Delta(
                mean(everywhere.delta),
                mean(everywhere.tv_tuned_reference),
                mean(everywhere.kl_tuned_reference),
                mean(everywhere.entropy_target),
                mean(everywhere.entropy_tuned),
            ),
            masked=max(max(c.masked) for c in (*along_base, *along_eft, *along_tuned)),
            endings=_endings(base, eft, tuned, along_tuned),
            rewards=Rewards(*map(_reward, (along_base, along_eft, along_tuned))),
            acceptance=mean(everywhere.accepted),
            drafts=tuple(
                self._drafts(max(eft, key=lambda a: len(a.tokens)), [c.accepted for c in along_eft])
            ),
        )
        return Diagnosis(self.name, self.weight, *judge(self.name, figures), figures)

    def _answers(self, **settings: Any) -> list[_Answer]:
        requests = [self._request(prompt, temperature=0.0, **settings) for prompt in self.prompts]
        answers = []
        for some in _batches(requests):
            for request, events in zip(some, self.engine.generate(some), strict=True):
                answers.append(_answer(request, events))
        return answers

    def _along(self, answers: Sequence[_Answer]) -> list[ModelComparison]:
        """The comparison along each answer, under the chat model's own sampling."""
        return [
            self.engine.compare(self._request(prompt), answer.tokens)
            for prompt, answer in zip(self.prompts, answers, strict=True)
        ]

    def _request(self, prompt: str, **settings: Any) -> GenerationRequest:
        parameters = {
            "mixture": {self.name: self.weight},
            "max_tokens": self.max_tokens,
            "upscale_strength": 1.0,
            "upscale_top_p": 1.0,
            **settings,
        }
        plain = {"n": 1, "logprobs": False, "top_logprobs": None}
        return self.llm.prepare_call([HumanMessage(prompt)], [], **plain, **parameters).only_request

    def _drafts(self, longest: _Answer, accepted: Sequence[Sequence[float]]) -> Iterator[Drafts]:
        """What each draft length would bring, from the time that its rounds take on one answer."""
        for length in (0, *self.draft_lengths) if self.draft_lengths else ():
            self.progress(f"{self.name}: timing drafts of {length}")
            request = longest.request.model_copy(update={"speculation": length})
            end = _answer(request, *self.engine.generate([request])).end
            rounds, seconds = end.verify_passes - 1, end.seconds - end.time_to_first_token
            expected = tokens_per_round(accepted, length)
            if length and not end.drafted_tokens:
                return  # nothing in this formula can draft
            yield Drafts(length, expected, expected * rounds / seconds if rounds and seconds else None)


def tokens_per_round(accepted: Sequence[Sequence[float]], length: int) -> float:
    """Tokens that a round yields on average over all places of an answer where it may start.

    Behaviours agree in long runs, so this is more than the rates' mean alone would promise.

    Args:
        accepted: Rate at each token of each answer.
        length: K, tokens drafted.
    """
    runs = [
        rates[start : start + length]
        for rates in accepted
        for start in range(max(len(rates) - length + 1, 1))
    ]
    return mean(list(map(expected_tokens, runs)))


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers, at least one."""
    return math.fsum(values) / len(values)


def _batches(requests: Sequence[GenerationRequest]) -> Iterator[Sequence[GenerationRequest]]:
    for start in range(0, len(requests), 8):
        yield requests[start : start + 8]


def _answer(request: GenerationRequest, events: Sequence[TextDelta | Finished]) -> _Answer:
    tokens = tuple(token for event in events if isinstance(event, TextDelta) for token in event.tokens)
    return _Answer(request, tokens, next(event for event in events if isinstance(event, Finished)))


def _kinship(along: ModelComparison) -> Kinship:
    return Kinship(mean(along.tv_base_reference), mean(along.tv_base_tuned), mean(along.tv_tuned_reference))


def _reward(comparisons: Sequence[ModelComparison]) -> float:
    """Mean over answers, so that long ones do not count more."""
    return mean([mean(c.tuned) - mean(c.reference) for c in comparisons])


def _endings(
    base: Sequence[_Answer],
    eft: Sequence[_Answer],
    tuned: Sequence[_Answer],
    along_tuned: Sequence[ModelComparison],
) -> Endings:
    ended = [c for answer, c in zip(tuned, along_tuned, strict=True) if answer.end.reason == "stop"]

    def probability(logprobs: Sequence[float]) -> float | None:
        return math.exp(mean(logprobs)) if logprobs else None

    base_share, eft_share, tuned_share = (
        mean([float(answer.end.reason == "stop") for answer in answers]) for answers in (base, eft, tuned)
    )
    return Endings(
        base_share,
        eft_share,
        tuned_share,
        probability([c.end_base[-1] for c in ended]),
        probability([c.end_tuned[-1] for c in ended]),
        probability([c.end_reference[-1] for c in ended]),
    )
