"""`python -m benchmarks.estimates.published_speeds`: estimates of `langchain-eft plan` beside measurements.

Published figures are those of one model alone, because nobody has published any of several. The seconds of a
layer and of a step were chosen with the first table in view. The second table was not used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.estimates.public_models import public_model
from langchain_eft.diagnostics.plan import (
    BaseFormat,
    Cluster,
    ShardedModel,
    plan_cluster,
    prompt_seconds,
    step_time,
)

VLLM_CI = "https://buildkite.com/vllm/performance-benchmark/builds/9515"
QWQ = "https://github.com/vllm-project/vllm/issues/18725"
B200 = "https://github.com/vllm-project/vllm/issues/20710"
NIM = "https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance"

MOST_REQUESTS = 2048
"""Most requests that decode together in TensorRT-LLM's measurements: an assumption."""


@dataclass(frozen=True)
class PublishedStep:
    """A measured time between two tokens.

    Attributes:
        engine: Engine and version.
        source: Address of the page.
        model: Hub id of a model of this shape.
        base_format: Format of its weights.
        cards: The cards, as `Cluster.parse` reads them.
        batch: Number of requests.
        context: Mean number of tokens of a request.
        milliseconds: The measured time.
    """

    engine: str
    source: str
    model: str
    base_format: BaseFormat | None
    cards: str
    batch: int
    context: int
    milliseconds: float

    @property
    def estimate(self) -> float:
        """Milliseconds by the model."""
        models = [public_model(self.model, base_format=self.base_format)]
        return 1e3 * step_time(models, Cluster.parse(self.cards), self.batch, self.context).seconds


@dataclass(frozen=True)
class PublishedThroughput:
    """A measured throughput under more requests than fit.

    Attributes:
        model: Hub id of a model of this shape. Weights, keys and values are fp8.
        cards: The cards, as `Cluster.parse` reads them.
        prompt: Tokens of each prompt.
        answer: Tokens of each answer.
        tokens_per_second: The measured tokens of answers.
    """

    model: str
    cards: str
    prompt: int
    answer: int
    tokens_per_second: float

    @property
    def estimate(self) -> float:
        """Tokens a second by the model."""
        models = [public_model(self.model, base_format="fp8")]
        return saturated(models, Cluster.parse(self.cards), self.prompt, self.answer)


def saturated(models: list[ShardedModel], cluster: Cluster, prompt: int, answer: int) -> float:
    """Tokens of answers a second when as many requests decode as fit.

    A request holds its prompt and half of its answer on average. For every token of an answer, a step also
    reads the tokens of prompts that new requests need.
    """
    context = prompt + answer // 2
    plan = plan_cluster(models, cluster, requests=1, context=context, kv_itemsize=1)
    batch = min(plan.kv_tokens // context, MOST_REQUESTS)
    step = step_time(models, cluster, batch, context, kv_itemsize=1).seconds
    return batch / (step + prompt_seconds(models, cluster, batch * prompt // answer))


LLAMA = "meta-llama/Llama-3.1-"

STEPS = (
    PublishedStep("vLLM's own CI, undated", VLLM_CI, f"{LLAMA}8B", None, "1xH200", 8, 96, 833.42 / 128),
    PublishedStep("vLLM's own CI, undated", VLLM_CI, f"{LLAMA}70B", None, "4xH200", 8, 96, 2077.53 / 128),
    PublishedStep("vLLM, May 2025", QWQ, "Qwen/Qwen2.5-32B", None, "8xH200", 1, 270, 6.49),
    PublishedStep("NIM 1.8.0", NIM, f"{LLAMA}70B", "fp8", "2xH100", 1, 5250, 18.58),
    PublishedStep("NIM 1.8.0", NIM, f"{LLAMA}70B", "fp8", "2xH100", 5, 5250, 21.83),
    PublishedStep("NIM 1.8.0", NIM, f"{LLAMA}70B", "fp8", "2xH100", 1, 1500, 18.91),
    PublishedStep("vLLM 0.9.0", B200, f"{LLAMA}70B", "fp8", "2xB200", 1, 768, 1e3 / 35.04),
    PublishedStep("vLLM 0.9.0", B200, f"{LLAMA}70B", "fp8", "2xB200", 16, 768, 1e3 / 49.97),
)

THROUGHPUTS = (
    PublishedThroughput(f"{LLAMA}8B", "1xH100", 128, 2048, 22714),
    PublishedThroughput(f"{LLAMA}8B", "1xH100", 1000, 1000, 15220),
    PublishedThroughput(f"{LLAMA}8B", "1xH200", 1000, 1000, 17744),
    PublishedThroughput(f"{LLAMA}70B", "2xH100", 128, 2048, 6651),
    PublishedThroughput(f"{LLAMA}70B", "2xH100", 1000, 1000, 4205),
    PublishedThroughput(f"{LLAMA}70B", "1xH200", 1000, 1000, 2909),
    PublishedThroughput(f"{LLAMA}405B", "8xH100", 128, 2048, 4340),
    PublishedThroughput(f"{LLAMA}405B", "8xH100", 1000, 1000, 2919),
    PublishedThroughput(f"{LLAMA}405B", "8xH200", 128, 2048, 5348),
    PublishedThroughput(f"{LLAMA}405B", "8xH200", 1000, 1000, 3330),
)


def error(estimate: float, measured: float) -> str:
    """How far an estimate is from a measurement, in percent of the latter."""
    return f"{100 * (estimate / measured - 1):+.0f} %"


def step_rows() -> Iterable[str]:
    """The table of times between two tokens."""
    yield "| engine | model | cards | requests | tokens of each | measured, ms | estimate, ms | error |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for row in STEPS:
        yield (
            f"| [{row.engine}]({row.source}) | {_named(row.model, row.base_format)} | {row.cards} | "
            f"{row.batch} | {row.context:,} | {row.milliseconds:.1f} | {row.estimate:.1f} | "
            f"{error(row.estimate, row.milliseconds)} |"
        )


def throughput_rows() -> Iterable[str]:
    """The table of throughputs."""
    yield "| model | cards | prompt, answer | measured, tokens/s | estimate, tokens/s | error |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for row in THROUGHPUTS:
        yield (
            f"| {_named(row.model, 'fp8')} | {row.cards} | {row.prompt:,}, {row.answer:,} | "
            f"{row.tokens_per_second:,.0f} | {row.estimate:,.0f} | "
            f"{error(row.estimate, row.tokens_per_second)} |"
        )


def _named(model: str, base_format: str | None) -> str:
    return f"{model.partition('/')[2]}, {base_format or 'bfloat16'}"


def main() -> None:
    """Print both tables."""
    print("\n".join([*step_rows(), "", *throughput_rows()]))


if __name__ == "__main__":
    main()
