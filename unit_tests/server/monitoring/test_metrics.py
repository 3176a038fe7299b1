"""What Prometheus reads: vLLM's names, and figures that add up."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.server.monitoring.metrics import Metrics
from langchain_eft.server.monitoring.request_record import RequestRecord
from unit_tests.server.conftest import serving


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ended(tokens=3, drafted=0, accepted=0, prompt=10, cached=4):
    return Finished("stop", prompt, tokens, cached, drafted, accepted, 1, 0.1, 0.2)


def record(mixture=None, *, drafted=0, accepted=0):
    made = RequestRecord(model="base", mixture=mixture or {})
    made.finished(ended(drafted=drafted, accepted=accepted), "stop")
    return made


async def test_the_engine_is_read_when_prometheus_asks(llm):
    async with serving(llm) as client:
        before = samples((await client.get("/metrics")).text)
        body = {"model": "base", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 6}
        usage = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        again = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        await client.post("/v1/chat/completions", json={**body, "temperature": -1})
        answer = await client.get("/metrics")
        after = samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain")

    def grown(name, *labels):
        return after[name, *labels] - before.get((name, *labels), 0)

    assert grown("eft:generation_tokens_total") == usage["completion_tokens"] + again["completion_tokens"]
    assert grown("eft:prompt_tokens_total") == grown("eft:prefix_cache_queries_total") > 0
    assert grown("eft:prefix_cache_hits_total") >= again["prompt_tokens_details"]["cached_tokens"] > 0
    assert grown("eft:request_success_total", "length") == 2
    assert grown("eft:request_errors_total", "400") == 1
    assert (
        grown("eft:time_to_first_token_seconds_count") == grown("eft:e2e_request_latency_seconds_count") == 2
    )
    assert grown("eft:inter_token_latency_seconds_count") <= 10
    assert (after["eft:num_requests_running",], after["eft:num_requests_waiting",]) == (0, 0)
    assert after["eft:kv_cache_usage_perc",] == 0
    assert after["eft:weights_bytes",] > 0


async def test_before_the_engine_is_open_there_are_only_figures_of_requests():
    found = samples(Metrics(lambda: None).text().decode())
    assert ("eft:e2e_request_latency_seconds_count",) in found
    assert ("eft:num_requests_running",) not in found


def test_drafts_are_counted_by_the_behaviors_that_are_active():
    metrics = Metrics(lambda: None)
    metrics.count(record({"pirate": 0.7, "concise": 1, "tools": 0}, drafted=10, accepted=7), 200)
    metrics.count(
        record({"pirate": 0.1, "concise": {"start": 0, "end": 1, "tokens": 3}}, drafted=2, accepted=1), 200
    )
    metrics.count(record({}, drafted=5, accepted=0), 200)
    found = samples(metrics.text().decode())
    assert found["eft:spec_decode_num_draft_tokens_total", "concise+pirate"] == 12
    assert found["eft:spec_decode_num_accepted_tokens_total", "concise+pirate"] == 8
    assert found["eft:spec_decode_num_draft_tokens_total", "none"] == 5
    assert found["eft:spec_decode_num_accepted_tokens_total", "none"] == 0


def test_the_number_of_series_is_bounded():
    metrics = Metrics(lambda: None)
    for i in range(500):
        metrics.count(record({f"behavior{i}": 1}, drafted=1), 200)
    labels = [
        key[1]
        for key in samples(metrics.text().decode())
        if key[0] == "eft:spec_decode_num_draft_tokens_total"
    ]
    assert len(labels) == 65
    assert samples(metrics.text().decode())["eft:spec_decode_num_draft_tokens_total", "other"] == 436


def test_every_token_after_the_first_round_has_an_interval():
    made = RequestRecord(model="base")
    for answer, tokens in ((0, 1), (1, 2), (0, 3), (0, 0), (1, 1)):
        made.delivered(answer, TextDelta("x", tuple(range(tokens)), ("x",) * tokens))
    assert made.completion_tokens == 7
    assert sum(tokens for _, tokens in made.intervals) == 4
    made.finished(ended(), "stop")
    metrics = Metrics(lambda: None)
    metrics.count(made, 200)
    found = samples(metrics.text().decode())
    assert found["eft:inter_token_latency_seconds_count",] == 4
    assert found["eft:inter_token_latency_seconds_sum",] == pytest.approx(
        sum(s * n for s, n in made.intervals)
    )


def test_prompts_of_several_answers_count_once():
    made = RequestRecord(model="base")
    made.finished(ended(), "stop")
    made.finished(ended(), "length", counts_prompt=False)
    assert (made.prompt_tokens, made.cached_tokens, made.finish_reasons) == (10, 4, ["stop", "length"])
