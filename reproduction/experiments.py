"""The experiments. Each returns a section: tables, a figure and findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from langchain_eft.cli.demo import PIRATE
from langchain_eft.diagnostics.bench import run_benchmark
from langchain_eft.evaluation import (
    Estimate,
    Evaluation,
    Matches,
    Task,
    base_alone,
    benign,
    frontier,
    harmful,
    interpolation,
    mixed,
    plot_bars,
    plot_frontier,
    plot_sweep,
    preferences,
    reference_alone,
    strength_sweep,
    tool_calls,
    top_p_sweep,
    tuned_alone,
    weight_sweep,
)
from langchain_eft.evaluation.results import markdown
from langchain_eft.evaluation.systems import System, variant
from reproduction import paper
from reproduction.bench import BEHAVIORS, SEED, Bench, Section, drawn
from reproduction.down_scaling import down_scaling
from reproduction.gates import gates
from reproduction.probes import familiar_harmful, familiar_tool_calls
from reproduction.wording import (
    against_measured,
    bars,
    captioned,
    difference,
    dominated_points,
    drop_missing,
    exactly,
    format_cell,
    format_estimate,
    gain,
    joined,
    measured_table,
    monotone,
    numbers,
    pair_table,
    paper_amplification,
    paper_gains,
    paper_truncation,
    ratios,
    systems_of,
    target,
)


def scale_decoupling(bench: Bench) -> Section:
    """Measure facts and behavior of each model size: pre-training gives facts, fine-tuning gives behavior."""
    llm, sizes = bench.llm, bench.sizes
    emulated = {name: mixed(llm, {name: 1.0}, f"EFT {name}") for name in BEHAVIORS}
    tuned = {name: tuned_alone(llm, name) for name in BEHAVIORS}
    ends = [base_alone(llm), reference_alone(llm)]
    pairs = [system for name in BEHAVIORS for system in (tuned[name], emulated[name])]
    pirate = Matches("pirate", PIRATE)
    facts = bench.runner.evaluate([*ends, *pairs], [bench.capitals().with_scorers(pirate)])
    fresh = tool_calls(sizes.tools, SEED)
    familiar = familiar_tool_calls(sizes.tools)
    # A share near 0 or 1 takes fewer cases: the base knows no calls, and writes until the limit.
    calls = joined(
        bench.runner.evaluate([emulated["tools"]], [familiar, fresh]),
        bench.runner.evaluate([tuned["tools"]], [familiar.limited(64), fresh.limited(64)]),
        bench.runner.evaluate(ends, [fresh.limited(16)]),
    )
    requests = [
        familiar_harmful(sizes.requests),
        drawn(harmful(), sizes.requests),
        drawn(benign(), sizes.requests),
    ]
    refusals = bench.runner.evaluate([*ends, tuned["harmless"], emulated["harmless"]], requests)
    evaluations = [facts, calls, refusals]
    header = ["system", "capitals", "pirate", "tools, new words", "tools, familiar", "harmful, familiar",
              "harmful, new",
              "benign", "length"]  # fmt: skip
    columns = [("capitals", "correct"), ("capitals", "pirate"), ("tool-calls", "exact"),
               ("familiar tools", "exact"),
               ("familiar harmful", "refused"), ("harmful", "refused"), ("benign", "over-refused"),
               ("capitals", "length")]  # fmt: skip
    rows = [
        [system.name, *(format_cell(evaluations, system.name, *column) for column in columns)]
        for system in [*ends, *pairs]
    ]
    plot_bars(
        {
            "base": bars(facts, {"base": "base"}),
            "reference": bars(facts, {"reference": "reference"}),
            **{n: bars(facts, {kind: f"{kind} {n}" for kind in ("tuned", "EFT")}) for n in BEHAVIORS},
        },
        bench.figures / "scale_decoupling.svg",
        ylabel="capitals right",
        title="Facts by system",
    )
    gains = [
        [name, gain(facts, f"EFT {name}", f"tuned {name}", "base"), paper_gains("up-scaling", "factuality")]
        for name in BEHAVIORS
    ]
    return Section(
        "scale_decoupling",
        "Scale decoupling: facts from pre-training, behavior from fine-tuning",
        "The paper: pre-training at a large scale adds facts, and fine-tuning at a small scale already gives "
        "the behavior. A large base with a small behavior delta has both. Here we compare the base (135M), "
        "the reference (57M), each tuned model (57M) alone, and EFT, which up-scales the tuned model to the "
        "base. *Familiar* prompts are those of `training/smol/measured.json`. They are unseen draws from "
        "the generator that made the training data. (The harmful ones were mostly seen, because the "
        "generator makes few.) *New* prompts share no word or request with the training data. The paper's "
        "upper end, a large fine-tuned model, does not exist for these behaviors. For facts, the base takes "
        "its place. The next experiment, down-scaling, has such a model.",
        (
            captioned("Shares with 95 % intervals. The length is that of the answers about capitals, in "
                       "characters.",
                       markdown(header, rows)),
            captioned("The same figures, measured once on a GPU in bfloat16 "
                       "(`training/smol/measured.json`).",
                       measured_table()),
            captioned(
                "Share of the gap in facts that up-scaling closes, (EFT - tuned) / (base - tuned), and the "
                "range of the paper's Figure 3 (up-scaling, factuality: (EFT - small) / (large - small)).",
                markdown(["behavior", "here", "paper"], gains)),
        ),
        "scale_decoupling.svg",
        (
            *target("EFT tools, capitals", facts.cell("EFT tools", "capitals").estimate, 0.33),
            *target("EFT tools, calls with new words exact",
                     calls.cell("EFT tools", "tool-calls").estimate, 0.97),
            *target("EFT tools, unseen calls with familiar words exact",
                     calls.cell("EFT tools", "familiar tools").estimate, 0.97),
            *target("EFT harmless, familiar harmful requests refused",
                     refusals.cell("EFT harmless", "familiar harmful").estimate, 0.97),
            *target("EFT harmless, new harmful requests refused",
                     refusals.cell("EFT harmless", "harmful").estimate, 0.97),
            *(difference(facts, f"EFT {name}", f"tuned {name}", "capitals") for name in BEHAVIORS),
            *against_measured(facts, calls, refusals),
        ),
        numbers(*evaluations),
    )  # fmt: skip


def harmless_frontier(bench: Bench) -> Section:
    """Measure refusal and over-refusal for several weights of `harmless`."""
    weights = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
    tasks = [drawn(task, bench.sizes.swept_requests) for task in (harmful(), benign())]
    large = bench.runner.evaluate(weight_sweep(bench.llm, "harmless", weights), tasks)
    small_systems = [
        reference_alone(bench.llm),
        *weight_sweep(bench.llm, "harmless", weights[1:], small=True),
    ]
    small = bench.runner.evaluate(small_systems, tasks)
    fronts = {
        "up-scaled to the base": frontier(large, ("benign", None), ("harmful", None)),
        "small models alone": frontier(small, ("benign", None), ("harmful", None)),
    }
    plot_frontier(fronts, bench.figures / "harmless_frontier.svg", "Refusal against over-refusal")
    refused = [large.cell(s, "harmful").estimate for s in systems_of(large)]
    over = [large.cell(s, "benign").estimate for s in systems_of(large)]
    dominated = dominated_points(fronts["up-scaled to the base"], fronts["small models alone"])
    return Section(
        "harmless_frontier",
        "Interpolation: refusal against over-refusal",
        "The paper interpolates between a helpful and a harmless reward and finds a frontier. Up-scaling "
        "moves the frontier outwards without training. Here the weight of `harmless` goes from 0 to 1.5, "
        "with and without the base. The cost is over-refusal. All prompts are new.",
        (
            captioned("", pair_table("weight", weights, large, small, [("harmful", "refused"),
                                                                      ("benign", "over-refused")])),
            captioned(
                "The paper's frontier, read off its figure: (harmful %, helpful %).",
                markdown(["policy", "points from safe to helpful"],
                         [[n, " ".join(f"({a:g}, {b:g})" for a, b in points)]
                          for n, points in paper.FRONTIER])),
        ),
        "harmless_frontier.svg",
        (
            monotone("refusal of harmful requests", refused, rising=True),
            monotone("over-refusal", over, rising=True),
            (
                f"An up-scaled point dominates {dominated} of {len(weights)} points of the small models "
                "alone (paper: all but the safest)."
            ),
        ),
        numbers(large, small),
    )  # fmt: skip


def tools_against_concise(bench: Bench) -> Section:
    """Measure mixtures of two behaviors."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    calls = tool_calls(bench.sizes.swept_tools, SEED)
    systems = [
        *interpolation(bench.llm, "tools", "concise", shares),
        mixed(bench.llm, {"tools": 1.0, "concise": 1.0}),
    ]
    evaluation = bench.runner.evaluate(systems, [calls, bench.plain_questions()])
    front = frontier(evaluation, ("plain questions", None), ("tool-calls", None))
    plot_frontier(front, bench.figures / "tools_concise.svg", "Tools against concise")
    both = evaluation.cell("tools=1 concise=1", "tool-calls").estimate
    alone = evaluation.cell("tools=1", "tool-calls").estimate
    return Section(
        "tools_concise",
        "Interpolation: tools against concise",
        "The same for two behaviors of different kinds: exact tool calls, and short answers to plain "
        "questions (in words, of at most 60 tokens). The weights add up to 1. The last row has both at 1.",
        (captioned("", evaluation.to_markdown()),),
        "tools_concise.svg",
        (
            (
                f"With both behaviors at weight 1, {format_estimate(both, 'share')} of the tool calls are "
                f"exact, compared to {format_estimate(alone, 'share')} with tools alone."
            ),
            f"Optimal mixtures: {', '.join(p.system for p in front.points if p.optimal)}.",
        ),
        numbers(evaluation),
    )


def amplification(bench: Bench) -> Section:
    """Measure several values of the up-scaling strength beta."""
    strengths = (0.0, 0.5, 1.0, 1.5, 2.0)
    llm = variant(bench.llm, mixture={"tools": 1.0})
    evaluation, facts, calls = _swept(
        bench,
        strengths,
        strength_sweep(llm, strengths),
        "amplification.svg",
        xlabel="up-scaling strength β",
        title="Amplification of up-scaling (tools)",
    )
    rows = [
        [f"{s:g}", format_estimate(f, "share"), format_estimate(c, "share"), *paper_amplification(s)]
        for s, f, c in zip(strengths, facts, calls, strict=True)
    ]
    header = [
        "β",
        "capitals",
        "tool calls exact",
        "paper: HumanEval pass@1",
        "paper: ELI5 errors",
        "paper: helpful",
    ]
    return Section(
        "amplification",
        "Amplification: the up-scaling strength β",
        "The paper: log p = F + β (L - S). A β above 1 makes answers more factual and less helpful. Here we "
        "vary β for `tools` and measure facts and the behavior. β = 0 is the tuned model alone.",
        (captioned("", markdown(header, rows)),),
        "amplification.svg",
        (
            difference(evaluation, "strength 1", "strength 0", "capitals"),
            difference(evaluation, "strength 1.5", "strength 1", "capitals"),
            difference(evaluation, "strength 2", "strength 1", "tool-calls"),
        ),
        numbers(evaluation),
    )


def truncation(bench: Bench) -> Section:
    """Measure conservative decoding."""
    top_ps = (1.0, 0.95, 0.9, 0.8)
    llm = variant(bench.llm, mixture={"tools": 1.0})
    evaluation, facts, calls = _swept(
        bench,
        top_ps,
        top_p_sweep(llm, top_ps),
        "truncation.svg",
        xlabel="top-p of the up-scaling weights",
        title="Conservative decoding (tools)",
    )
    rows = [
        [
            "none" if p == 1 else f"{p:g}",
            format_estimate(f, "share"),
            format_estimate(c, "share"),
            *paper_truncation(p),
        ]
        for p, f, c in zip(top_ps, facts, calls, strict=True)
    ]
    header = ["top-p", "capitals", "tool calls exact", "paper: errors per prompt", "paper: helpful"]
    return Section(
        "truncation",
        "Conservative decoding: truncated up-scaling weights",
        "The paper: outside the small model's top-p nucleus, the up-scaling weight is 1. A top-p of 0.95 "
        "lowers errors a little; 0.9 and 0.8 raise them.",
        (captioned("", markdown(header, rows)),),
        "truncation.svg",
        tuple(difference(evaluation, f"top-p {p:g}", "no truncation", "capitals") for p in top_ps[1:]),
        numbers(evaluation),
    )


def _swept(
    bench: Bench, values: Sequence[float], systems: Sequence[System], figure: str, *, xlabel: str, title: str
) -> tuple[Evaluation, list[Estimate | None], list[Estimate | None]]:
    """Measure and plot facts and tool calls over a sweep.

    Returns:
        The evaluation, the share of right capitals and the share of exact calls.
    """
    evaluation = bench.runner.evaluate(systems, [bench.capitals(), tool_calls(bench.sizes.swept_tools, SEED)])
    names = systems_of(evaluation)
    facts = [evaluation.cell(name, "capitals").estimate for name in names]
    calls = [evaluation.cell(name, "tool-calls").estimate for name in names]
    plot_sweep(
        values,
        {"capitals": drop_missing(facts), "tool calls exact": drop_missing(calls)},
        bench.figures / figure,
        xlabel=xlabel,
        ylabel="share",
        title=title,
        percent=True,
    )
    return evaluation, facts, calls


def reward_accuracy(bench: Bench) -> Section:
    """Measure the accuracy of implicit rewards, without generation."""
    systems = [mixed(bench.llm, {name: 1.0}) for name in BEHAVIORS]
    kinds = ("harmless", "helpful", "concise")
    tasks = [_pairs(kind).limited(bench.sizes.pairs) for kind in kinds]
    evaluation = bench.runner.evaluate(systems, tasks)
    refusals = evaluation.cell("harmless=1", "harmless").estimate
    short = evaluation.cell("concise=1", "concise").estimate
    plot_bars(
        {
            kind: {s: drop_missing([evaluation.cell(s, kind).estimate])[0] for s in systems_of(evaluation)}
            for kind in kinds
        },
        bench.figures / "reward_accuracy.svg",
        ylabel="chosen answer preferred",
        title="Implicit reward accuracy",
    )
    return Section(
        "reward_accuracy",
        "Implicit rewards: which answer does a behavior prefer?",
        "The paper assumes that a fine-tuned model contains its reward, log F - log S. Here we test whether "
        "each behavior's reward prefers the better of two answers. There are only eight pairs of each kind, "
        "so the intervals are wide.",
        (captioned("", evaluation.to_markdown()),),
        "reward_accuracy.svg",
        (
            (
                f"`harmless` prefers the refusal in {format_estimate(refusals, 'share')} of the pairs and "
                f"`concise` the short answer in {format_estimate(short, 'share')}."
            ),
        ),
        numbers(evaluation),
    )


def speculation(bench: Bench) -> Section:
    """Measure the speed at several draft lengths."""
    lengths = (2, 4, 8, 16)
    report = run_benchmark(
        bench.llm,
        max_tokens=bench.sizes.tokens,
        repetitions=bench.sizes.repetitions,
        lengths=lengths,
        batch_sizes=(),
    )
    sets = list(dict.fromkeys(each.prompts for each in report.measurements))
    modes = ["plain", *(f"draft {length}" for length in lengths), "auto", "base alone"]
    by_name = {(each.prompts, each.mode): each for each in report.measurements}
    rows = []
    for prompts in sets:
        for mode in modes:
            measured = by_name[prompts, mode]
            speed, ratio, rate = measured.tokens_per_second, measured.ratio, measured.acceptance_rate
            rows.append([
                prompts, mode, f"{speed.median:.1f} ({speed.low:.1f}-{speed.high:.1f})",
                "1" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})",
                "-" if rate is None else f"{rate:.0%}", f"{measured.tokens_per_pass:.2f}",
            ])  # fmt: skip
    plot_sweep(
        [0, *lengths],
        {
            **{f"here: {s}": [exactly(1), *ratios(by_name, s, lengths)] for s in sets},
            **{f"paper: {s}": [exactly(v / speeds[0]) for v in speeds.values()]
               for s, speeds in paper.SPEED.items()},
        },
        bench.figures / "speculation.svg",
        xlabel="tokens drafted",
        ylabel="times plain EFT",
        title="Speed of speculative EFT",
    )  # fmt: skip
    paper_rows = [
        [s, *(f"{v / speeds[0]:.2f}" for v in speeds.values()), f"{paper.SPEED_OF_BASE / speeds[0]:.2f}",
         f"{paper.ACCEPTANCE_AT_8[s]:.0%}"]
        for s, speeds in paper.SPEED.items()
    ]  # fmt: skip
    best = {s: max(lengths, key=lambda k: ratios(by_name, s, [k])[0].value) for s in sets}
    return Section(
        "speculation",
        "Speculative EFT: speed against the draft length",
        "The paper: the small tuned model drafts K tokens, and base and reference check them in one pass. At "
        "K = 8 this is 2.3-2.5 times as fast as plain EFT; the large model has 10 times the size of the "
        "small one. Here the small models have 0.42 of the base's size, and the machine is a CPU. Each "
        "drafted token costs a pass of a small model. So the possible gain is far smaller.",
        (
            captioned("Tokens per second of one request, and the speed relative to plain EFT: median "
                       "(lowest-highest) of the runs.",
                       markdown(["prompts", "decoding", "tokens/s", "times plain", "accepted",
                                 "tokens/pass"], rows)),
            captioned("The paper, Llama-2-7B-chat up-scaled to 70B: speed relative to plain EFT at each K, "
                       "the same for the base alone, and the acceptance at K = 8 that its speeds imply.",
                       markdown(["prompts", "0", "2", "4", "8", "16", "base alone", "accepted"], paper_rows)),
        ),
        "speculation.svg",
        (
            "Best fixed K here: " + ", ".join(f"{s} {k}" for s, k in best.items()) + " (paper: 8, of 2 to "
            "16).",
            "Acceptance at K = 8 here: " + ", ".join(
                f"{s} {by_name[s, 'draft 8'].acceptance_rate or 0:.0%}" for s in sets)
            + " (paper, derived: 89-92 %).",
        ),
        {"report": report.to_json()},
    )  # fmt: skip


EXPERIMENTS: Mapping[str, Callable[[Bench], Section]] = {
    "scale_decoupling": scale_decoupling,
    "down_scaling": down_scaling,
    "harmless_frontier": harmless_frontier,
    "amplification": amplification,
    "truncation": truncation,
    "tools_concise": tools_against_concise,
    "gates": gates,
    "reward_accuracy": reward_accuracy,
    "speculation": speculation,
}
"""The experiments in the order of the page."""


def _pairs(kind: str) -> Task:
    everything = preferences()
    kept = tuple(case for case in everything.cases if case.name.startswith(kind))
    return replace(everything, name=kind, cases=kept)
