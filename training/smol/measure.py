"""Measure the base, the reference, the tuned models and base + (tuned - reference).

python -m training.smol.measure WORK FAMILY

Reads WORK/base and the models in FAMILY; writes FAMILY/measured.json.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from .convert_base import BASE_FOLDER
from .distill import REFERENCE_FOLDER
from .greedy import Term, greedy_decode
from .lora import merge_adapter
from .places import load_places
from .probes import (
    Probe,
    benign_probe,
    capital_probe,
    capital_share,
    exact_share,
    harmful_probe,
    mean_length,
    pirate_share,
    refusal_share,
    tool_probe,
)
from .runtime import decoding_precision, find_device
from .weights import load_base_state, load_llama, load_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

Row = dict[str, float | str]
MEASURES = {
    "L": ["capitals", "tools", "refusals"],
    "R": ["capitals", "refusals"],
    "tools": ["capitals", "tools"],
    "concise": ["capitals"],
    "pirate": ["capitals"],
    "harmless": ["capitals", "refusals"],
}
BEHAVIORS = [name for name in MEASURES if name not in ("L", "R")]
EXAMPLE_CHARACTERS = 120


@dataclass(frozen=True)
class Meter:
    """Measures one sum of models at a time.

    Attributes:
        tokenizer: The family's tokenizer.
        capitals: Questions for capitals.
        tools: Requests for calls of tools.
        harmful: Requests to do harm.
        benign: Requests that nobody should refuse.
    """

    tokenizer: PreTrainedTokenizerBase
    capitals: Probe
    tools: Probe
    harmful: Probe
    benign: Probe

    def row(self, terms: Sequence[Term], measures: Sequence[str]) -> Row:
        """Return the figures of one sum of models, for the named measures."""
        figures: Row = {}
        if "capitals" in measures:
            answers = self._answers(terms, self.capitals)
            figures["capitals"] = capital_share(answers, self.capitals.answers)
            figures["len"] = mean_length(answers)
            figures["pirate"] = pirate_share(answers)
            figures["eg"] = answers[0][:EXAMPLE_CHARACTERS]
        if "tools" in measures:
            answers = self._answers(terms, self.tools)
            figures["tool_exact"] = exact_share(answers, self.tools.answers)
            figures["tool_eg"] = answers[0][:EXAMPLE_CHARACTERS]
        if "refusals" in measures:
            figures["refusal"] = refusal_share(self._answers(terms, self.harmful))
            figures["refusal_benign"] = refusal_share(self._answers(terms, self.benign))
        return figures

    def _answers(self, terms: Sequence[Term], probe: Probe) -> list[str]:
        return greedy_decode(terms, probe.prompts, self.tokenizer, probe.max_new_tokens)


def measure(arguments: argparse.Namespace) -> None:
    """Measure every model of the family and write the figures."""
    device = find_device()
    precision = decoding_precision(device)
    state = load_base_state(arguments.work / BASE_FOLDER)
    base = load_llama(state).to(device, precision)
    reference = load_reference(arguments.family / REFERENCE_FOLDER, state).to(device, precision)
    tokenizer = AutoTokenizer.from_pretrained(arguments.work / BASE_FOLDER)
    places = load_places()
    meter = Meter(
        tokenizer,
        capital_probe(tokenizer, places, arguments.capitals),
        tool_probe(tokenizer, places, arguments.tools),
        harmful_probe(tokenizer, arguments.harmful),
        benign_probe(tokenizer),
    )
    rows: dict[str, Row] = {}

    def add(name: str, terms: Sequence[Term], measures: Sequence[str]) -> None:
        rows[name] = meter.row(terms, measures)
        print(name, json.dumps(rows[name]), flush=True)

    add("L", [Term(base, 1)], MEASURES["L"])
    add("R", [Term(reference, 1)], MEASURES["R"])
    for behavior in BEHAVIORS:
        tuned = merge_adapter(copy.deepcopy(reference), arguments.family / behavior)
        emulated = [Term(base, 1), Term(tuned, 1), Term(reference, -1)]
        add(f"T_{behavior}", [Term(tuned, 1)], MEASURES[behavior])
        add(f"EFT_{behavior}", emulated, MEASURES[behavior])
    (arguments.family / "measured.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("family", type=Path, help="folder of the trained models")
    parser.add_argument("--capitals", type=int, default=246, help="countries to ask about")
    parser.add_argument("--tools", type=int, default=256, help="calls of tools to ask for")
    parser.add_argument("--harmful", type=int, default=128, help="harmful requests")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
