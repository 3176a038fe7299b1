"""The experiment on gates: emulated fine-tuning beside nudging and a gate between the two."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_eft.cli.demo import PIRATE
from langchain_eft.evaluation import (
    Estimate,
    Evaluation,
    Matches,
    System,
    base_alone,
    benign,
    gated,
    harmful,
    mixed,
    nudged,
    plot_bars,
    tool_calls,
    tuned_alone,
)
from langchain_eft.evaluation.results import markdown
from reproduction.bench import SEED, Bench, Section, drawn
from reproduction.wording import captioned, difference, format_cell, numbers, systems_of

_BEHAVIORS = ("tools", "harmless", "pirate")

_BELOW = 0.4
"""The largest confidence of the base at which gates are open: the threshold of Fei et al. 2024."""

_WIDER = 0.8

_MEASURES = {
    "tools": ("tool-calls", "exact", "tool calls exact"),
    "harmless": ("harmful", "refused", "harmful refused"),
    "pirate": ("capitals", "pirate", "capitals in pirate"),
}
"""Task, metric and title of what each behavior is for."""


def _systems(bench: Bench, behavior: str) -> Mapping[str, System]:
    """The ways to use a behavior, by what they are."""
    return {
        "tuned": tuned_alone(bench.llm, behavior),
        "EFT": mixed(bench.llm, {behavior: 1.0}, f"EFT {behavior}"),
        "gated EFT": gated(bench.llm, behavior, _BELOW),
        "gated EFT, wider": gated(bench.llm, behavior, _WIDER),
        "nudging": nudged(bench.llm, behavior, _BELOW),
    }


def gates(bench: Bench) -> Section:
    """Measure EFT with and without a gate, and nudging, on facts and on behavior."""
    sizes = bench.sizes
    facts = bench.capitals().with_scorers(Matches("pirate", PIRATE))
    facts = facts.limited(sizes.swept_requests, SEED)
    # Who makes no call writes until the limit, so calls are few, and the base is not asked for any.
    tasks = {
        "tools": [tool_calls(sizes.swept_tools, SEED).limited(12)],
        "harmless": [drawn(harmful(), sizes.chat), drawn(benign(), sizes.chat)],
        "pirate": [],
    }
    base = bench.runner.evaluate([base_alone(bench.llm)], [facts, *tasks["harmless"]])
    evaluations = {
        behavior: bench.runner.evaluate(list(_systems(bench, behavior).values()), [facts, *tasks[behavior]])
        for behavior in _BEHAVIORS
    }
    columns = [("capitals", "correct", "capitals"), *_MEASURES.values(), ("benign", "over-refused", "benign")]
    header = ["system", *(title for *_, title in columns)]
    rows = [
        [name, *(format_cell([evaluation], name, task, metric) for task, metric, _ in columns)]
        for evaluation in (base, *evaluations.values())
        for name in systems_of(evaluation)
    ]
    plot_bars(
        {
            title: _shares(bench, behavior, evaluations[behavior])
            for behavior, (*_, title) in _MEASURES.items()
        },
        bench.figures / "gates.svg",
        ylabel="share",
        title="Behavior by the way to use it",
    )
    return Section(
        "gates",
        "Gates: emulated fine-tuning beside nudging",
        "The paper has no such experiment. Nudging (Fei et al. 2024) takes the token of the small tuned "
        f"model F where the base's largest probability is at most {_BELOW:g}, else that of the base. "
        "Its authors report that this changes fewer than 9 % of the tokens. EFT adds F - S at every token; "
        "proxy-tuning (Liu et al. 2024) is the same formula. Gated EFT adds F - S only where the base "
        f"is unsure: up to a probability of {_BELOW:g}, or of {_WIDER:g}. All of them are weights of one "
        "sampler here. The question is whether facts gain where the base decides more tokens alone, and what "
        "the behavior loses. The base is an instruct model, which is often sure of another style.",
        (captioned("Shares with 95 % intervals.", markdown(header, rows)),),
        "gates.svg",
        tuple(
            difference(evaluation, f"{way} {behavior} at {_BELOW:g}", f"EFT {behavior}", *measure)
            for behavior, evaluation in evaluations.items()
            for way in ("gated", "nudged")
            for measure in (_MEASURES[behavior][:2], ("capitals", "correct"))
        ),
        numbers(base, *evaluations.values()),
    )


def _shares(bench: Bench, behavior: str, evaluation: Evaluation) -> dict[str, Estimate]:
    """The share of what a behavior is for, by the way to use it."""
    task, metric, _ = _MEASURES[behavior]
    estimates = {
        way: evaluation.cell(system.name, task, metric).estimate
        for way, system in _systems(bench, behavior).items()
    }
    return {way: estimate for way, estimate in estimates.items() if estimate is not None}
