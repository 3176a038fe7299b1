"""Compare up-scaling with down-scaling: the effect of the base's size and of the fine-tuned model's size."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from langchain_eft import BehaviorDelta, EFTChatModel
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.evaluation import (
    Evaluation,
    base_alone,
    benign,
    harmful,
    mixed,
    plot_bars,
    reference_alone,
    tuned_alone,
)
from langchain_eft.evaluation.results import markdown
from langchain_eft.evaluation.systems import System, variant
from reproduction.bench import Bench, Section, drawn
from reproduction.probes import familiar_harmful
from reproduction.wording import bars, captioned, difference, format_cell, gain, numbers, paper_gains

BEHAVIORS = ("concise", "harmless")
LABELS = ("small tuned", "down-scaled", "up-scaled", "large tuned")
COLUMNS = (
    ("capitals", "correct"), ("plain questions", "words"), ("familiar harmful", "refused"),
    ("harmful", "refused"), ("benign", "over-refused"),
)  # fmt: skip
EMBEDDING = "model.embed_tokens.weight"


def down_scaling(bench: Bench) -> Section:
    """Compare a small base with a large pair and a large base with a small pair."""
    small, large = _small_base(bench), _with_large_adapters(bench)
    combinations = {name: _combinations(name, small, large) for name in BEHAVIORS}
    ends = [base_alone(large, "base"), reference_alone(large, "reference")]
    systems = [*ends, *(system for four in combinations.values() for system in four)]
    facts = bench.runner.evaluate(systems, [bench.capitals(), bench.plain_questions()])
    requests = [
        familiar_harmful(min(bench.sizes.requests, 64)),
        drawn(harmful(), bench.sizes.swept_requests),
        drawn(benign(), bench.sizes.swept_requests),
    ]
    refusals = bench.runner.evaluate([*ends, *combinations["harmless"]], requests)
    rows = [
        [system.name, *(format_cell([facts, refusals], system.name, *column) for column in COLUMNS)]
        for system in systems
    ]
    plot_bars(
        {name: bars(facts, {label: f"{name}, {label}" for label in LABELS}) for name in BEHAVIORS},
        bench.figures / "down_scaling.svg",
        ylabel="capitals right",
        title="Facts by the sizes of base and fine-tuning",
    )
    return Section(
        "down_scaling",
        "Up-scaling and down-scaling: the effect of each size",
        "The paper: fine-tuning at a large scale makes answers helpful, and pre-training at a large scale "
        "makes them right. So a large base with a small fine-tuned model (up-scaling) has the facts of the "
        "large model. A small base with a large fine-tuned model (down-scaling) has its behavior. Here the "
        "large fine-tuned model is the base with adapters of rank 4, trained on two CPU cores in minutes "
        "(`training/smol/adapt_base.py`). Down-scaling applies them to the reference: "
        "log p = S + (F - L), where F is the fine-tuned base.",
        (
            captioned(
                "Shares with 95 % intervals, and the number of words in the answers to plain questions.",
                markdown(
                    ["system", "capitals", "plain questions, words", "harmful, familiar", "harmful, new",
                     "benign"],
                    rows,
                ),
            ),
            captioned(
                "Facts: share of the gap between the small fine-tuned model (0) and the large one (1), "
                "and the range of the paper's Figure 3.",
                markdown(["combination", *BEHAVIORS, "paper"], _gains(facts)),
            ),
        ),
        "down_scaling.svg",
        (
            *(difference(facts, f"{n}, up-scaled", f"{n}, down-scaled", "capitals") for n in BEHAVIORS),
            *(_kept(facts, refusals, name) for name in BEHAVIORS),
        ),
        numbers(facts, refusals),
    )  # fmt: skip


def _combinations(name: str, small: EFTChatModel, large: EFTChatModel) -> list[System]:
    return [
        tuned_alone(large, name, f"{name}, small tuned"),
        mixed(small, {name: 1.0}, f"{name}, down-scaled"),
        mixed(large, {name: 1.0}, f"{name}, up-scaled"),
        mixed(large, {f"large {name}": 1.0}, f"{name}, large tuned"),
    ]


def _gains(facts: Evaluation) -> list[list[str]]:
    def closed(name: str, label: str) -> str:
        return gain(facts, f"{name}, {label}", f"{name}, small tuned", f"{name}, large tuned")

    return [
        [
            f"{direction}-scaling",
            *(closed(name, f"{direction}-scaled") for name in BEHAVIORS),
            paper_gains(f"{direction}-scaling", "factuality"),
        ]
        for direction in ("up", "down")
    ]


def _kept(facts: Evaluation, refusals: Evaluation, name: str) -> str:
    """Describe how much of the behavior each combination has."""
    column = ("harmful", "refused") if name == "harmless" else ("plain questions", "words")
    cells = [f"{label} {format_cell([facts, refusals], f'{name}, {label}', *column)}" for label in LABELS]
    return f"{name}, {' '.join(column)}: {', '.join(cells)}."


def _large_pairs(bench: Bench) -> dict[str, BehaviorDelta]:
    base = bench.llm.recipe.base
    return {
        name: BehaviorDelta(adapter=str(bench.large_adapters / name), reference=base) for name in BEHAVIORS
    }


def _with_large_adapters(bench: Bench) -> EFTChatModel:
    """Return the family with adapters of the base. Their S is L, so weight 1 is the fine-tuned base alone."""
    llm = bench.llm
    large_pairs = {f"large {name}": pair for name, pair in _large_pairs(bench).items()}
    return variant(llm, behaviors={**llm.behaviors, **large_pairs}, engine_options=_options(llm))


def _small_base(bench: Bench) -> EFTChatModel:
    """Return a recipe with the reference as its base, and the large pairs."""
    llm = bench.llm
    folder = _whole_reference(llm, bench.folder / "reference")
    return variant(
        llm, model=str(folder), behaviors=_large_pairs(bench), mixture={}, engine_options=_options(llm),
        chat_template=llm.recipe.chat_template,
    )  # fmt: skip


def _options(llm: EFTChatModel) -> dict[str, object]:
    """Limit the KV memory, because several engines are open at once."""
    return {"kv_cache_tokens": 32768, **llm.engine_options}


def _whole_reference(llm: EFTChatModel, folder: Path) -> Path:
    """Save the reference as a complete checkpoint, with the base's embeddings and tokenizer."""
    checkpoints = RecipeCheckpoints.find(llm.recipe, Path)
    base, reference = (
        Path(checkpoint.fetch(lambda _: None))
        for checkpoint in (checkpoints.base, next(iter(checkpoints.pairs.values())).reference)
    )
    weights = load_file(reference / "model.safetensors")
    dtype = next(iter(weights.values())).dtype
    weights = {EMBEDDING: load_file(base / "model.safetensors")[EMBEDDING].to(dtype), **weights}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(reference / "config.json", folder)
    llm.tokenizer.save_pretrained(folder)
    return folder
