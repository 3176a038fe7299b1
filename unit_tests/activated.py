"""Activated adapters (aLoRA) of a tiny family, and what PEFT says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from peft import PeftModel

from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.tiny import Reference, TinyFamily

INVOCATIONS = {"judge": [3, 200, 201], "cite": [210, 211]}
"""By behavior, the tokens from whose last occurrence in a prompt its adapter acts."""


def activated_recipe(family: TinyFamily, folder: Path) -> Recipe:
    """The family's behaviors, and three with activated adapters, one of which reads a prompt of its own."""
    for name, source in (("judge", "one"), ("cite", "two")):
        path = shutil.copytree(family.folder / source, folder / name) / "adapter_config.json"
        settings = {"alora_invocation_tokens": INVOCATIONS[name], "task_type": "CAUSAL_LM"}
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    judge, cite = (
        BehaviorDelta(adapter=str(folder / name), reference=str(family.folder / "reference"))
        for name in ("judge", "cite")
    )
    told = judge.model_copy(update={"prompt": "Be brief."})
    behaviors = {**family.recipe.behaviors, "judge": judge, "cite": cite, "told": told}
    return family.recipe.model_copy(update={"behaviors": behaviors})


def peft_reference(family: TinyFamily, recipe: Recipe) -> Reference:
    """The family in transformers and PEFT alone."""
    reference = Reference(family)
    for name in INVOCATIONS:
        plain = Reference(family).small["reference"]
        reference.small[name] = PeftModel.from_pretrained(plain, recipe.behaviors[name].adapter).eval()
    return reference
