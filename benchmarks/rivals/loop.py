"""The loop that people write by hand: three models of transformers with caches."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rivals.result import Prompts, Result, clock
from benchmarks.rivals.rival import Rival


class Loop:
    """The proxy loop; batches are padded on the left.

    Args:
        folder: A family.
    """

    def __init__(self, folder: Path) -> None:
        from benchmarks.rivals.family import Family, load_model
        from benchmarks.rivals.proxy_loop import ProxyLoop

        models = (load_model(folder / name) for name in ("base", "tuned", "reference"))
        self._loop = ProxyLoop(*models, Family.load(folder).end_ids)

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        started = clock()
        answers, moments = self._loop.decode(prompts, tokens, temperature, seed)
        return Result.of_steps(started, moments, answers)


LOOP = Rival(
    "proxy loop",
    "proxy loop",
    Loop,
    lacks="drafts; requests that join a running batch; tools and schemas; streams",
)
