"""All rivals: those of `python -m benchmarks.rivals`, and those of other benchmarks."""

from __future__ import annotations

from benchmarks.rivals import arithmetic, assisted, generate, llama_cpp, loop, our_engine, vllm
from benchmarks.rivals.rival import Rival

BASELINE = loop.LOOP
RIVALS = (
    our_engine.PLAIN,
    our_engine.AUTO,
    BASELINE,
    vllm.ONE_BEHAVIOR,
    our_engine.BASE_ALONE,
    generate.GENERATE,
    assisted.ASSISTED,
    vllm.BASE_ALONE,
    llama_cpp.LLAMA_CPP,
)
"""First those that mix a behavior, then those that decode the base alone."""

OTHERS = (vllm.FOUR_BEHAVIORS, arithmetic.PLAIN, arithmetic.SPECULATIVE)
MAKERS = {rival.process: rival.make for rival in (*RIVALS, *OTHERS)}
"""Makes the contestant of each process."""


def chosen(names: list[str] | None) -> list[Rival]:
    """The rivals whose names contain one of some texts; all by default.

    Raises:
        ValueError: A text is in no name.
    """
    for name in names or []:
        if not any(name in rival.name for rival in RIVALS):
            raise ValueError(
                f"no rival's name contains {name!r}: use one of {', '.join(rival.name for rival in RIVALS)}"
            )
    return [rival for rival in RIVALS if names is None or any(name in rival.name for name in names)]
