"""Measure the speed of a recipe: the base alone, plain EFT, speculative EFT, and many requests at once.

Each way to decode runs in turn with plain EFT, several times. The result is the median of the ratios, with
its spread, because a single run is unreliable on a machine that has other work to do. Answers end by
themselves. Every prompt contains a new number, so the prefix cache never has a whole prompt.
"""

from langchain_eft.diagnostics.bench.machine import Machine, measure_machine, processor
from langchain_eft.diagnostics.bench.measurement import Measurement, Run, summarize, weights_read
from langchain_eft.diagnostics.bench.report import BenchmarkReport, run_benchmark
from langchain_eft.diagnostics.bench.turns import Spread, take_turns
from langchain_eft.diagnostics.bench.view import plot, tables
from langchain_eft.diagnostics.bench.workload import (
    AUTO,
    BASE_ALONE,
    PLAIN,
    DecodingMode,
    PromptSet,
    Workload,
    default_prompts,
    numbered,
    numbered_tools,
)

__all__ = [
    "AUTO", "BASE_ALONE", "PLAIN", "BenchmarkReport", "DecodingMode", "Machine", "Measurement", "PromptSet",
    "Run", "Spread", "Workload", "default_prompts", "measure_machine", "numbered",
    "numbered_tools", "plot", "processor", "run_benchmark", "summarize", "tables", "take_turns",
    "weights_read",
]  # fmt: skip
