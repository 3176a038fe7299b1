"""The README of a behavior's folder: a model card as the hub reads it."""

from __future__ import annotations

import json
from typing import Any

from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.teaching.verdict import TaughtVerdict, percent

HUB_LICENSES = frozenset(
    {
        "afl-3.0",
        "agpl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bigscience-openrail-m",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "creativeml-openrail-m",
        "gemma",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl-3.0",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "mit",
        "mpl-2.0",
        "odc-by",
        "openrail",
        "openrail++",
        "other",
        "unlicense",
    }
)
"""Identifiers of licenses on the hub."""


def model_card(card: BehaviorCard, hub_base: str | None, verdict: TaughtVerdict | None) -> str:
    """The text of the README.

    Args:
        card: What the behavior says of itself.
        hub_base: Hub id of the model that the adapter derives from, or None.
        verdict: What was measured, or None.
    """
    head = {
        "library_name": "peft",
        **hub_license(card.license),
        "base_model": hub_base,
        "tags": ["langchain-eft", "emulated-fine-tuning", "lora"],
    }
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items() if value)
    weight = 1.0 if card.recommended_weight is None else card.recommended_weight
    what = (
        f"A behavior for emulated fine-tuning: a LoRA on `{card.reference}`. At decoding, what it changes in "
        f"the small model is added to the large model `{card.base}`.\n"
    )
    use = (
        "```python\nfrom langchain_eft import BehaviorDelta, EFTChatModel\n\n"
        f'llm = EFTChatModel(\n    model="{card.base}",\n'
        f'    behaviors={{"{card.name}": BehaviorDelta(adapter="PATH OR HUB ID")}},\n'
        f'    mixture={{"{card.name}": {weight:g}}},\n)\n```\n'
    )
    made = (
        f"## How it was made\n\n* Source: {card.source}\n* Settings: {_listed(card.settings)}\n"
        f"* Held-out loss: {_loss(card.measured)}\n"
    )
    parts = [f"---\n{front}\n---\n\n# {card.name}\n", what, use, made]
    if verdict is not None:
        parts.append(verdict_markdown(verdict))
    return "\n".join(parts)


def hub_license(name: str) -> dict[str, str]:
    """A license as the hub's metadata has it. The hub refuses names that it does not know as `license`."""
    identifier = name.strip().lower().replace(" ", "-")
    if identifier in HUB_LICENSES:
        return {"license": identifier}
    return {"license": "other", "license_name": identifier}


def verdict_markdown(verdict: TaughtVerdict) -> str:
    """The verdict as Markdown."""
    rows = "\n".join(
        f"| {p.weight:g} | {percent(p.behavior)} | {percent(p.behavior_kept)} | {percent(p.knowledge)} "
        f"| {percent(p.knowledge_kept)} |"
        for p in verdict.sweep
    )
    recommended = ""
    if verdict.weight_range is not None:
        low, high = verdict.weight_range
        recommended = f"Recommended weight: **{verdict.recommended_weight:g}**, range {low:g} to {high:g}. "
    samples = "\n".join(f"* Weight {s.weight:g}: {' '.join(s.answer.split())}" for s in verdict.samples)
    return (
        f"## Verdict\n\n{verdict.sentence}\n\n"
        f"{recommended}Expected acceptance of drafts: {verdict.acceptance:.0%}.\n\n"
        "| weight | shows the behavior | of the small model's | capitals right | of the base's |\n"
        f"| --- | --- | --- | --- | --- |\n{rows}\n\n"
        f"An answer shows the behavior if: {verdict.measured_by}. The small tuned model alone: "
        f"{verdict.behavior_small:.0%}, its reference: {verdict.behavior_reference:.0%}.\n\n"
        f"## Samples\n\n{verdict.samples[0].prompt}\n\n{samples}\n"
    )


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _loss(measured: dict[str, Any]) -> str:
    before, after = measured["loss_before"], measured["loss_after"]
    return f"{before:.3f} before, {after:.3f} after ({measured['held_out']} examples that were not learned)"
