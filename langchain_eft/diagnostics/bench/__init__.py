"""How fast a recipe decodes here: the base alone, plain EFT, speculative EFT, and many requests at once.

A measurement is a ratio: every way to decode is run in turn with plain EFT, several times, and the median is
reported with its spread. One run tells nothing on a machine that does other things as well. Answers end where
they end, and every prompt carries a number that was never used before, so that none is found in the prefix
cache as a whole.
"""

from langchain_eft.diagnostics.bench.machine import Machine, available_cores, measure_machine, processor
from langchain_eft.diagnostics.bench.measurement import (
    Recorder,
    Row,
    Run,
    Spread,
    decode,
    summarize,
    weights_read,
)
from langchain_eft.diagnostics.bench.report import BenchmarkReport, run_benchmark
from langchain_eft.diagnostics.bench.view import plot, tables
from langchain_eft.diagnostics.bench.workload import (
    AUTO,
    BASE,
    PLAIN,
    PromptSet,
    Way,
    Workload,
    default_prompts,
    numbered,
    numbered_tools,
)

__all__ = [
    "AUTO", "BASE", "PLAIN", "BenchmarkReport", "Machine", "PromptSet", "Recorder", "Row", "Run", "Spread",
    "Way", "Workload", "available_cores", "decode", "default_prompts", "measure_machine", "numbered",
    "numbered_tools", "plot", "processor", "run_benchmark", "summarize", "tables", "weights_read",
]  # fmt: skip
