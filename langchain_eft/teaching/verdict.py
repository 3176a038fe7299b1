"""The verdict on a taught behavior: does it transfer, at which weight, and what does it cost in knowledge?"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_eft.engine.errors import ContextWindowError
from langchain_eft.engine.progress import Progress
from langchain_eft.evaluation.cases import Answer, Case, Score, Scorer
from langchain_eft.evaluation.results import Evaluation
from langchain_eft.evaluation.runner import Runner
from langchain_eft.evaluation.statistics import difference
from langchain_eft.evaluation.systems import System, base_alone, mixed, reference_alone, tuned_alone
from langchain_eft.evaluation.tasks import Task, capitals
from langchain_eft.evaluation.text_scorers import Matches
from langchain_eft.teaching.examples import Example
from langchain_eft.teaching.tokens import Renderer

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.diagnostics.verdict import Diagnosis

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""The weights that are measured, beside 0."""

TOO_MUCH = 2.0
"""The weight of the last sample answer."""

NOT_LEARNED, NOT_KEPT = "not learned", "kept at no weight"
"""Verdicts beside those of `diagnose`."""

PROMPTS, CAPITALS, ANSWER_TOKENS, SAMPLE_PROMPTS = 16, 48, 48, 5


@dataclass(frozen=True)
class SweepPoint:
    """What one weight does.

    Attributes:
        weight: The behavior's weight.
        behavior: Share of answers to held-out prompts that show the behavior.
        knowledge: Share of capitals that are right.
        behavior_kept: `behavior`, relative to the small tuned model's own; None if that is 0.
        knowledge_kept: `knowledge`, relative to the base's own; None if that is 0.
    """

    weight: float
    behavior: float
    knowledge: float
    behavior_kept: float | None
    knowledge_kept: float | None

    @property
    def score(self) -> float:
        """Behavior kept times knowledge kept, each at most 1. A base that knows nothing has none to lose."""
        knowledge = 1.0 if self.knowledge_kept is None else self.knowledge_kept
        return min(self.behavior_kept or 0.0, 1.0) * min(knowledge, 1.0)


@dataclass(frozen=True)
class Sample:
    """One answer, to be read.

    Attributes:
        weight: The behavior's weight.
        prompt: The question.
        answer: The answer.
    """

    weight: float
    prompt: str
    answer: str


@dataclass(frozen=True)
class TaughtVerdict:
    """The verdict on a taught behavior.

    Attributes:
        verdict: As `diagnose` gives it, at the recommended weight; or that the behavior was not learned, or
            is not kept at any weight.
        sentence: The verdict with its reason.
        distance: Total variation of tuned model and reference along the base's own answers, 0 to 1.
        behavior_small: Share of the small tuned model's answers that show the behavior.
        behavior_reference: Share of the reference's answers that show it.
        knowledge_base: Share of capitals that the base has right.
        sweep: The weights, from 0 up.
        recommended_weight: The smallest weight that keeps nearly most of both. None if the behavior was not
            learned, or no weight keeps both.
        weight_range: The weights around it that keep four fifths of that, or None.
        acceptance: Share of draft tokens to expect to be accepted at the recommended weight, or at 1.
        samples: Answers to one prompt at weight 0, the recommended weight or 1, and too much.
        measured_by: What counts as showing the behavior.
    """

    verdict: str
    sentence: str
    distance: float
    behavior_small: float
    behavior_reference: float
    knowledge_base: float
    sweep: tuple[SweepPoint, ...]
    recommended_weight: float | None
    weight_range: tuple[float, float] | None
    acceptance: float
    samples: tuple[Sample, ...]
    measured_by: str

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data, for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


@dataclass(frozen=True)
class ImplicitReward:
    """Scores an answer by its mean `log F - log S` per token (Mitchell et al. 2023, section 3.2).

    Attributes:
        llm: A model with the behavior.
        behavior: Its name.
        renderer: Renders answers as they were taught.
        name: Name of the metric.
    """

    llm: EFTChatModel
    behavior: str
    renderer: Renderer
    name: str = "reward"
    unit: str = "nats"
    higher_is_better: bool | None = True

    def score(self, case: Case, answer: Answer) -> Score:
        """The reward; 0 for an answer without content."""
        if not answer.text.strip() and not answer.tool_calls:
            return Score(0.0, "empty")
        calls: list[Any] = [{**call, "id": f"call_{i}"} for i, call in enumerate(answer.tool_calls)]
        message = AIMessage(answer.text.strip(), tool_calls=calls)
        tools = tuple(dict(tool) for tool in case.tools)
        prompt, ids = self.renderer.answer(case.name, case.messages, message, tools)
        ids = ids[:-1] or ids  # an answer that was cut off at its longest length has no end
        try:
            (reward,) = self.llm.open_local().score(self.behavior, prompt, [ids])
        except ContextWindowError:
            return Score(None, "too long")
        return Score(reward / len(ids))


def held_out_task(examples: Sequence[Example], scorers: Sequence[Scorer]) -> Task:
    """The prompts of held-out examples as a task."""
    cases = tuple(
        Case(f"{i}: {example.place}", example.prompt, tools=example.tools)
        for i, example in enumerate(examples[:PROMPTS])
    )
    return Task("held-out", cases, tuple(scorers), max_tokens=ANSWER_TOKENS)


def judge_behavior(
    llm: EFTChatModel,
    name: str,
    held_out: Sequence[Example],
    renderer: Renderer,
    folder: Path,
    *,
    style: str | None,
    progress: Progress,
    capitals_asked: int = CAPITALS,
) -> TaughtVerdict:
    """Measure a behavior on held-out prompts and on capitals, at several weights.

    An answer shows the behavior if its implicit reward is nearer to that of the tuned model's answers than to
    that of the base's answers, or, with `style`, if the pattern occurs in it.

    Args:
        llm: A model of this process that has the behavior.
        name: The behavior.
        held_out: Examples that were not learned.
        renderer: Renders answers as they were taught.
        folder: Where answers are kept, to resume from.
        style: A regular expression that answers with the behavior match, or None.
        progress: Receives what is measured.
        capitals_asked: How many capitals are asked for.

    Raises:
        EngineError: The models cannot be loaded, or the evaluation fails.
    """
    reward: Scorer = ImplicitReward(llm, name, renderer)
    scorer: Scorer = Matches("style", style) if style else reward
    tasks = [held_out_task(held_out, [scorer]), capitals().limited(capitals_asked, seed=0)]
    tasks[1] = replace(tasks[1], scorers=tasks[1].scorers[:1])
    runner = Runner(folder)
    base, tuned, reference = base_alone(llm), tuned_alone(llm, name, "tuned"), reference_alone(llm)
    swept = [mixed(llm, {name: weight}, f"{weight:g}") for weight in WEIGHTS]

    def measured(system: System, message: str, tasks: Sequence[Task] = tasks) -> Evaluation:
        progress(f"Measuring {message}")
        return runner.evaluate([system], tasks)

    of_base, of_tuned = measured(base, "the base alone"), measured(tuned, "the small tuned model")
    of_reference = measured(reference, "the small reference", tasks[:1])
    threshold = 0.5 if style else (_mean(of_base, "base") + _mean(of_tuned, "tuned")) / 2
    shown_after, shown_before = (
        _shown(of_tuned, "tuned", threshold),
        _shown(of_reference, "reference", threshold),
    )
    small, known = _share(shown_after), _correct(of_base, "base")
    points = [_point(0.0, _share(_shown(of_base, "base", threshold)), known, small, known)]
    for weight, system in zip(WEIGHTS, swept, strict=True):
        found = measured(system, f"weight {weight:g}")
        shown, right = _share(_shown(found, system.name, threshold)), _correct(found, system.name)
        points.append(_point(weight, shown, right, small, known))
    learned = is_learned(shown_after, shown_before)
    best, bounds = (learned and recommend(points)) or (None, None)
    used = 1.0 if best is None else best
    progress("Diagnosing")
    diagnosis = _diagnosis(llm, name, used, held_out)
    verdict, sentence = str(diagnosis.verdict), diagnosis.sentence
    if not learned:
        verdict, sentence = NOT_LEARNED, _not_learned(name, shown_after, shown_before)
    elif best is None:
        verdict, sentence = NOT_KEPT, f"{_not_kept(name)} {sentence}"
    return TaughtVerdict(
        verdict=verdict,
        sentence=sentence,
        distance=diagnosis.figures.base_distances.tuned_reference,
        behavior_small=small,
        behavior_reference=_share(shown_before),
        knowledge_base=known,
        sweep=tuple(points),
        recommended_weight=best,
        weight_range=bounds,
        acceptance=diagnosis.figures.acceptance,
        samples=_samples(llm, name, held_out[0], used),
        measured_by=f"answers match {style!r}" if style else "implicit reward nearer to the tuned model's",
    )


def is_learned(tuned: Sequence[float | None], reference: Sequence[float | None]) -> bool:
    """Whether the small tuned model shows the behavior more often than its reference, beyond chance.

    That is: the lower end of the paired interval of the difference is above 0.

    Args:
        tuned: For each prompt 1 if the answer shows the behavior, 0 if not, None if it has no score.
        reference: The same for the reference.
    """
    pairs = [(after, before) for after, before in zip(tuned, reference, strict=True)]
    scored = [(after, before) for after, before in pairs if after is not None and before is not None]
    return bool(scored) and difference(*zip(*scored, strict=True)).low > 0


def _not_learned(name: str, tuned: Sequence[float | None], reference: Sequence[float | None]) -> str:
    return (
        f"{name!r} was not learned: the small tuned model itself shows the behavior in {_share(tuned):.0%} "
        f"of its answers to {len(tuned)} held-out prompts, its reference in {_share(reference):.0%}. No "
        "weight is recommended. Train longer (more `steps`), or give more examples."
    )


def _not_kept(name: str) -> str:
    return (
        f"No weight of {name!r} up to {WEIGHTS[-1]:g} keeps the behavior and the base's knowledge, so none "
        "is recommended."
    )


def _point(weight: float, behavior: float, knowledge: float, small: float, known: float) -> SweepPoint:
    return SweepPoint(weight, behavior, knowledge, _kept(behavior, small), _kept(knowledge, known))


def _kept(value: float, whole: float) -> float | None:
    return value / whole if whole else None


def percent(share: float | None) -> str:
    """A share as tables show it."""
    return "-" if share is None else f"{share:.0%}"


def recommend(points: Sequence[SweepPoint]) -> tuple[float, tuple[float, float]] | None:
    """The recommended weight and the range around it, or None if no weight keeps behavior and knowledge.

    The smallest weight with 97 % of the best score is recommended. The range has its neighbors with four
    fifths of the best score, without a gap.

    Args:
        points: The weights in ascending order, 0 first.
    """
    scores = [point.score for point in points]
    best = max(scores[1:])
    if not best:
        return None
    chosen = next(i for i in range(1, len(points)) if scores[i] >= 0.97 * best)
    low = high = chosen
    while low > 1 and scores[low - 1] >= 0.8 * best:
        low -= 1
    while high < len(points) - 1 and scores[high + 1] >= 0.8 * best:
        high += 1
    return points[chosen].weight, (points[low].weight, points[high].weight)


def _values(found: Evaluation, system: str) -> list[float]:
    return [value for value in found.cell(system, "held-out").values if value is not None]


def _mean(found: Evaluation, system: str) -> float:
    values = _values(found, system)
    return math.fsum(values) / len(values) if values else 0.0


def _shown(found: Evaluation, system: str, threshold: float) -> list[float | None]:
    values = found.cell(system, "held-out").values
    return [None if value is None else float(value > threshold) for value in values]


def _share(shown: Sequence[float | None]) -> float:
    values = [value for value in shown if value is not None]
    return sum(values) / len(values) if values else 0.0


def _correct(found: Evaluation, system: str) -> float:
    estimate = found.cell(system, "capitals").estimate
    return estimate.value if estimate else 0.0


def _diagnosis(llm: EFTChatModel, name: str, weight: float, held_out: Sequence[Example]) -> Diagnosis:
    from langchain_eft.diagnostics.diagnose import diagnose
    from langchain_eft.evaluation.systems import variant

    prompts = [question(example.prompt) for example in held_out[:SAMPLE_PROMPTS]]
    (diagnosis,) = diagnose(variant(llm, mixture={name: weight}), prompts, draft_lengths=())
    return diagnosis


def _samples(llm: EFTChatModel, name: str, example: Example, best: float) -> tuple[Sample, ...]:
    asked = list(example.prompt)
    weights = dict.fromkeys((0.0, best, TOO_MUCH))
    return tuple(
        Sample(weight, question(asked), _answer(llm, asked, {name: weight} if weight else {}))
        for weight in weights
    )


def _answer(llm: EFTChatModel, messages: Sequence[BaseMessage], mixture: dict[str, float]) -> str:
    answer = llm.invoke(list(messages), mixture=mixture, temperature=0.0, max_tokens=ANSWER_TOKENS)
    return str(answer.text).strip()


def question(messages: Sequence[BaseMessage]) -> str:
    """The text of the last user message."""
    return next(str(m.text) for m in reversed(messages) if isinstance(m, HumanMessage))
