"""`python -m benchmarks.router`: prefix affinity beside round robin and least loaded, on simulated agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.public_models import public_pair
from benchmarks.router.policies import POLICIES
from benchmarks.router.replica import Replica
from benchmarks.router.simulation import Outcome, simulate
from benchmarks.router.workload import Workload
from langchain_eft.diagnostics.plan import Cluster

CARDS = "4xH200"
REPLICAS = 4
RATES = (1.0, 2.0)
SEEDS = (0, 1, 2)

Measure = Callable[[Outcome], float]

MEASURES: dict[str, tuple[Measure, str]] = {
    "prompt tokens cached": (lambda outcome: outcome.cached, "{:.0%}"),
    "first token, median, s": (lambda outcome: outcome.first_token(50), "{:.2f}"),
    "first token, 95th percentile, s": (lambda outcome: outcome.first_token(95), "{:.2f}"),
    "between tokens, mean, ms": (lambda outcome: 1e3 * outcome.between_tokens, "{:.1f}"),
}


def outcomes(workload: Workload, *, policy: str, shared_prefixes: bool = True) -> list[Outcome]:
    """The outcome of a policy for each seed."""
    models = public_pair("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-8B")
    cluster = Cluster.parse(CARDS)
    return [
        simulate(
            workload.sessions(seed),
            [Replica.of(models, cluster) for _ in range(REPLICAS)],
            POLICIES[policy](),
            shared_prefixes=shared_prefixes,
        )
        for seed in SEEDS
    ]


def rows() -> Iterator[str]:
    """The table: medians over seeds, and the lowest and highest of them."""
    yield f"| sessions/s | router | {' | '.join(MEASURES)} |"
    yield f"| ---: | --- | {' | '.join('---:' for _ in MEASURES)} |"
    for rate in RATES:
        for policy in POLICIES:
            yield _row(rate, policy, outcomes(Workload(rate), policy=policy))
        separate = outcomes(Workload(rate), policy="prefix affinity", shared_prefixes=False)
        yield _row(rate, "prefix affinity, no prefix shared between mixtures", separate)


def _row(rate: float, name: str, results: list[Outcome]) -> str:
    cells = []
    for measure, form in MEASURES.values():
        values = sorted(measure(result) for result in results)
        cells.append(f"{form} ({form}-{form})".format(median(values), values[0], values[-1]))
    return f"| {rate} | {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
