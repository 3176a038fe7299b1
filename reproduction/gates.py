"""The experiment on gates: emulated fine-tuning beside nudging and a gate between the two."""

from __future__ import annotations

from collections.abc import Mapping

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
from reproduction.bench import SEED, Bench, Section
from reproduction.wording import captioned, difference, drop_missing, format_cell, numbers
from training.smol.probes import PIRATE

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
    requests, base = bench.sizes.swept_requests, base_alone(bench.llm)
    facts = bench.capitals().with_scorers(Matches("pirate", PIRATE.pattern)).limited(2 * requests, SEED)
    tasks = {
        "tools": [facts, tool_calls(bench.sizes.swept_tools, SEED)],
        "harmless": [facts, harmful(SEED).limited(requests), benign(SEED).limited(requests)],
        "pirate": [facts],
    }
    evaluations = {
        behavior: bench.runner.evaluate([base, *_systems(bench, behavior).values()], tasks[behavior])
        for behavior in _BEHAVIORS
    }
    columns = [("capitals", "correct", "capitals"), *_MEASURES.values(), ("benign", "over-refused", "benign")]
    rows = [
        [name, *(format_cell([evaluation], name, task, metric) for task, metric, _ in columns)]
        for behavior, evaluation in evaluations.items()
        for name in [system.name for system in _systems(bench, behavior).values()]
    ]
    alone = [
        "base",
        *(format_cell(evaluations.values(), "base", task, metric) for task, metric, _ in columns),
    ]
    header = ["system", *(title for *_, title in columns)]
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
        (captioned("Shares with 95 % intervals.", markdown(header, [alone, *rows])),),
        "gates.svg",
        tuple(
            difference(evaluation, f"{way} {behavior} at {_BELOW:g}", f"EFT {behavior}", *measure)
            for behavior, evaluation in evaluations.items()
            for way in ("gated", "nudged")
            for measure in (_MEASURES[behavior][:2], ("capitals", "correct"))
        ),
        numbers(*evaluations.values()),
    )


def _shares(bench: Bench, behavior: str, evaluation: Evaluation) -> dict[str, Estimate]:
    """The share of what a behavior is for, by the way to use it."""
    task, metric, _ = _MEASURES[behavior]
    cells = {"base": "base", **{way: system.name for way, system in _systems(bench, behavior).items()}}
    estimates = {way: evaluation.cell(name, task, metric).estimate for way, name in cells.items()}
    return {way: drop_missing([estimate])[0] for way, estimate in estimates.items()}
