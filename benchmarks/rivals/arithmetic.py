"""language-model-arithmetic, plain and with its only speculative setting that is exact."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rivals.result import Contestant
from benchmarks.rivals.rival import Rival


def _plain(folder: Path) -> Contestant:
    from benchmarks.rivals.arithmetic_contestant import Arithmetic

    return Arithmetic(folder, 1)


def _speculative(folder: Path) -> Contestant:
    from benchmarks.rivals.arithmetic_contestant import Arithmetic

    return Arithmetic(folder, 4)


PLAIN = Rival("arithmetic, plain", "arithmetic, plain", _plain)
SPECULATIVE = Rival("arithmetic, speculative", "arithmetic, speculative", _speculative)
