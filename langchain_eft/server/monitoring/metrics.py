"""What Prometheus reads. The names are vLLM's, with `eft:` in the place of `vllm:`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from langchain_eft.engine.stats import EngineStats
from langchain_eft.server.monitoring.request_record import RequestRecord

_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_WHOLE = (0.05, 0.1, 0.3, 0.5, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 60, 120, 240, 480)
"""Upper ends of the histograms' buckets, in seconds."""

_MOST_MIXTURES = 64
"""Largest number of values of the label `mixture`; every one is a series that Prometheus keeps."""

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The state of the engine and the figures of past requests, in Prometheus' text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The figures of one server.

    Args:
        stats: What the engine does now; None while it is not open.
    """

    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(stats))
        self._mixtures: set[str] = set()
        self._success = self._counter(
            "request_success", "Answers that ended, by reason.", ("finished_reason",)
        )
        self._errors = self._counter("request_errors", "Requests that failed, by HTTP status.", ("status",))
        self._drafted = self._counter(
            "spec_decode_num_draft_tokens", "Draft tokens of ended answers, by behaviors.", ("mixture",)
        )
        self._accepted = self._counter(
            "spec_decode_num_accepted_tokens", "Draft tokens that were accepted, by behaviors.", ("mixture",)
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Seconds from a request to its first token.", _FIRST_TOKEN
        )
        self._between_tokens = self._histogram(
            "inter_token_latency_seconds", "Seconds between two tokens of an answer.", _BETWEEN_TOKENS
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "Seconds from a request to the end of its answer.", _WHOLE
        )

    def _counter(self, name: str, description: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"eft:{name}", description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"eft:{name}", description, buckets=buckets, registry=self._registry)

    def count(self, record: RequestRecord, status: int) -> None:
        """Count a request that has ended.

        Args:
            record: What its route noted.
            status: Its HTTP status.
        """
        if status >= 400:
            self._errors.labels(status).inc()
        for reason in record.finish_reasons:
            self._success.labels(reason).inc()
        if record.time_to_first_token is not None:
            self._first_token.observe(record.time_to_first_token)
        for seconds, tokens in record.intervals:
            for _ in range(tokens):
                self._between_tokens.observe(seconds)
        if record.finish_reasons:
            self._whole.observe(record.seconds)
        if record.drafted_tokens:
            mixture = self._mixture_label(record)
            self._drafted.labels(mixture).inc(record.drafted_tokens)
            self._accepted.labels(mixture).inc(record.accepted_tokens)

    def _mixture_label(self, record: RequestRecord) -> str:
        """The behaviors of a mixture without their weights, of which there are endlessly many."""
        label = "+".join(sorted(name for name, weight in record.mixture.items() if weight)) or "none"
        if label not in self._mixtures and len(self._mixtures) >= _MOST_MIXTURES:
            return "other"
        self._mixtures.add(label)
        return label

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engine when Prometheus asks."""

    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        """No names in advance: the engine may not be open yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The engine's counters."""
        stats = self._stats()
        if stats is None:
            return
        used = 1 - stats.free_blocks / max(stats.blocks, 1)
        read = stats.prefilled_tokens + stats.cached_tokens
        gauges = (
            ("num_requests_running", "Requests that are running.", stats.running),
            ("num_requests_waiting", "Requests that wait.", stats.waiting),
            ("kv_cache_usage_perc", "Share of the KV memory that requests use, from 0 to 1.", used),
            ("weights_bytes", "Memory of all weights.", stats.weight_bytes),
        )
        counters = (
            ("prompt_tokens", "Prompt tokens that were read, from the prefix cache or not.", read),
            ("generation_tokens", "Tokens of answers.", stats.generated_tokens),
            ("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache.", read),
            ("prefix_cache_hits", "Prompt tokens that were found there.", stats.cached_tokens),
            ("num_preemptions", "Requests that gave their memory to an older one.", stats.preemptions),
        )
        for name, description, value in gauges:
            yield GaugeMetricFamily(f"eft:{name}", description, value)
        for name, description, value in counters:
            yield CounterMetricFamily(f"eft:{name}", description, value)
