"""`python -m benchmarks.small_model_layouts`: where the small models of a recipe should sit, by estimates.

The base is divided among all cards. The small models can be divided too, be copied to every card, or have a
card of their own that works while the base's cards do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.public_models import public_pair
from langchain_eft.diagnostics.plan import (
    BaseFormat,
    Cluster,
    ServedModel,
    StepTime,
    reduce_seconds,
    step_time,
)

BATCHES = (1, 32, 128)
CONTEXT = 2048


@dataclass(frozen=True)
class Pair:
    """A base and a small model on a cluster.

    Attributes:
        base: Hub id of the base.
        small: Hub id of the small model.
        base_format: Format of the base's weights.
        cards: The cards, as `Cluster.parse` reads them.
    """

    base: str
    small: str
    base_format: BaseFormat | None
    cards: str


LLAMA = "meta-llama/Llama-3"

PAIRS = (
    Pair(f"{LLAMA}.1-8B", f"{LLAMA}.2-1B", None, "1xH100"),
    Pair(f"{LLAMA}.1-70B", f"{LLAMA}.2-1B", None, "4xH200"),
    Pair(f"{LLAMA}.1-70B", f"{LLAMA}.1-8B", None, "4xH200"),
    Pair(f"{LLAMA}.1-405B", f"{LLAMA}.1-8B", "fp8", "8xH200"),
)


def divided(models: Sequence[ServedModel], cluster: Cluster, batch: int) -> float:
    """Seconds of a step in which every card has a part of every model."""
    return step_time(models, cluster, batch, CONTEXT).seconds


def gathered_apart(models: Sequence[ServedModel], cluster: Cluster, batch: int) -> float:
    """The same, but the logits of each model are gathered apart, and summed afterwards."""
    vocabulary = models[0].footprint.vocabulary
    # A gather sends half of what an all-reduce of the same bytes sends.
    gather = reduce_seconds(cluster, batch * vocabulary * 4 / 2)
    return divided(models, cluster, batch) + (len(models) - 1) * gather


def copied(models: Sequence[ServedModel], cluster: Cluster, batch: int) -> float:
    """Seconds of a step in which every card has whole small models, and computes them for all requests."""
    return step_time(models[:1], cluster, batch, CONTEXT).seconds + _own(models, cluster, batch)


def apart(models: Sequence[ServedModel], cluster: Cluster, batch: int) -> float:
    """Seconds of a step in which one more card has the small models, and works beside the base's cards."""
    base = step_time(models[:1], cluster, batch, CONTEXT)
    both = max(_passes(base), _own(models, cluster, batch))
    logits = reduce_seconds(Cluster(cluster.card, 2), batch * models[0].footprint.vocabulary * 4)
    return both + base.logits + base.host + logits


def _own(models: Sequence[ServedModel], cluster: Cluster, batch: int) -> float:
    return _passes(step_time(models[1:], Cluster(cluster.card, 1), batch, CONTEXT))


def _passes(time: StepTime) -> float:
    return time.products + time.attention + time.layers + time.reduces


LAYOUTS = {
    "divided among all cards, one gather (the plugin)": divided,
    "divided, a gather for every model": gathered_apart,
    "a copy on every card": copied,
    "on one more card, at the same time": apart,
}


def rows() -> Iterator[str]:
    """The table of layouts: milliseconds, and how many times the base alone they are."""
    requests = " | ".join("1 request" if batch == 1 else f"{batch} requests" for batch in BATCHES)
    yield f"| models | cards | small models | GiB on a card | {requests} |"
    yield f"| --- | --- | --- | ---: | {' | '.join('---:' for _ in BATCHES)} |"
    for pair in PAIRS:
        models = public_pair(pair.base, pair.small, pair.base_format)
        cluster = Cluster.parse(pair.cards)
        names = (
            f"{_size(pair.base)}{f' {pair.base_format}' if pair.base_format else ''} + {_size(pair.small)}"
        )
        for name, layout in LAYOUTS.items():
            if cluster.count == 1 and layout in (gathered_apart, copied):
                continue  # one card has nothing to gather or copy
            cells = (_cell(layout(models, cluster, n), models, cluster, n) for n in BATCHES)
            cards = 1 if layout in (copied, apart) else cluster.count
            memory = sum(model.nbytes(cards) for model in models[1:]) / 2**30
            yield f"| {names} | {pair.cards} | {name} | {memory:.1f} | {' | '.join(cells)} |"


def _cell(seconds: float, models: Sequence[ServedModel], cluster: Cluster, batch: int) -> str:
    alone = step_time(models[:1], cluster, batch, CONTEXT).seconds
    return f"{1e3 * seconds:.1f} ms ({seconds / alone:.2f})"


def _size(name: str) -> str:
    return name.rpartition("-")[2]


def main() -> None:
    """Print the table."""
    print("\n".join(rows()))


if __name__ == "__main__":
    main()
