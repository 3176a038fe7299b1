"""Traces of tokens against their definition: full forwards, no cache, distributions compared in float64."""

import re

import pytest
import torch

from langchain_eft.engine.analysis.attribution import Parts, WeightedDelta, attribute, normalize
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import GREEDY, Recorder, answer, request, wait_until

PROMPT = [7, 30, 9, 61, 61, 12]
SAMPLED = SamplingParams(temperature=0.9, top_p=0.9, seed=3)


def traced(engine, mixture, sampling=SAMPLED, tokens=10, **kwargs):
    """Tokens and traces of one answer."""
    one = request(PROMPT, mixture, sampling, tokens, trace=True, **kwargs)
    deltas = [event for event in engine.stream(one) if isinstance(event, TextDelta)]
    assert all(len(delta.traces) == len(delta.tokens) for delta in deltas)
    return [i for d in deltas for i in d.tokens], [t for d in deltas for t in d.traces]


def check_shift(shift, before, after):
    change = after.exp() - before.exp()
    assert shift.total_variation == pytest.approx(float(change.abs().sum()) / 2, abs=1e-4)
    for (token, amount), extreme in ((shift.up, change.max()), (shift.down, change.min())):
        assert amount == pytest.approx(float(extreme), abs=1e-4)
        assert float(change[token]) == pytest.approx(float(extreme), abs=1e-4)


def check(reference, tokens, traces, mixture, strength=1.0, top_p=1.0):
    """Every number of every trace, from the formula's definition."""
    text = [*PROMPT, *tokens[:-1]]

    def logp(mixture, strength, top_p=1.0):
        return reference.all_logprobs(text, len(tokens), mixture, strength, top_p)

    @torch.inference_mode()
    def of(name):
        model = reference.small[name]
        return model(torch.tensor([text])).logits[0, -len(tokens) :].double().log_softmax(-1)

    p, base, small = logp(mixture, strength, top_p), logp({}, 1.0), logp(mixture, 0.0)
    plain = of("reference")
    without = {
        name: logp({k: w for k, w in mixture.items() if k != name}, strength, top_p) for name in mixture
    }
    for i, (token, trace) in enumerate(zip(tokens, traces, strict=True)):
        assert trace.logprob == pytest.approx(float(p[i, token]), abs=1e-3)
        assert trace.base == pytest.approx(float(base[i, token]), abs=1e-3)
        assert trace.small == pytest.approx(float(small[i, token]), abs=1e-3)
        check_shift(trace.from_base, base[i], p[i])
        check_shift(trace.from_small, small[i], p[i])
        assert trace.behaviors.keys() == mixture.keys()
        for name, part in trace.behaviors.items():
            assert part.weight == mixture[name]
            assert part.tuned == pytest.approx(float(of(name)[i, token]), abs=1e-3)
            assert part.reference == pytest.approx(float(plain[i, token]), abs=1e-3)
            check_shift(part.shift, without[name][i], p[i])


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["off", *range(1, 8), "auto"])
def test_traces_are_the_formulas_for_every_draft_length(engine, reference, draft):
    mixture = {"one": 0.8, "two": 0.6}
    tokens, traces = traced(engine, mixture, GREEDY if draft == 2 else SAMPLED, speculation=draft)
    check(reference, tokens, traces, mixture)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mixture", "strength", "top_p"),
    [
        ({"full": 1.0}, 1.0, 1.0),
        ({"one": 1.0}, 1.4, 1.0),
        ({"one": 0.7, "two": 1.2}, 1.0, 0.8),
        ({"two": 1.0}, 1.3, 0.6),
        ({"one": 1.0}, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("draft", ["off", 3])
def test_every_form_of_the_formula_is_traced(engine, reference, mixture, strength, top_p, draft):
    tokens, traces = traced(
        engine, mixture, upscale_strength=strength, upscale_top_p=top_p, speculation=draft
    )
    check(reference, tokens, traces, mixture, strength, top_p)


def test_behaviors_with_references_of_their_own_are_traced_with_the_mean_reference():
    def logp():
        return torch.randn(9, generator=generator).double().log_softmax(-1)

    generator = torch.Generator().manual_seed(0)
    base, tuned, plain = logp(), [logp(), logp()], [logp(), logp()]
    p = base + 0.5 * (tuned[0] - plain[0]) + 0.8 * (tuned[1] - plain[1])
    deltas = {"a": WeightedDelta(0.5, tuned[0], plain[0]), "b": WeightedDelta(0.8, tuned[1], plain[1])}
    vocabulary = torch.ones(9, dtype=torch.bool)
    vocabulary[4] = False
    mean = (plain[0] + plain[1]) / 2
    parts = Parts(p, normalize(base, vocabulary), deltas, mean, 1.0, 1.0, vocabulary)

    def over_vocabulary(logits):
        return logits.masked_fill(~vocabulary, -torch.inf).log_softmax(-1)

    torch.testing.assert_close(parts.small(), over_vocabulary(p - base + mean))
    torch.testing.assert_close(parts.without("a"), over_vocabulary(base + 0.8 * (tuned[1] - plain[1])))
    trace = attribute(2, parts)
    assert trace.logprob == pytest.approx(float(over_vocabulary(p)[2]))
    check_shift(trace.from_base, over_vocabulary(base), over_vocabulary(p))


def test_the_base_alone_differs_from_nothing(engine):
    _, traces = traced(engine, {})
    for trace in traces:
        assert trace.small is None
        assert trace.from_small is None
        assert trace.from_base.total_variation == pytest.approx(0, abs=1e-6)
        assert trace.behaviors == {}
        assert trace.logprob == pytest.approx(trace.base)


def test_traces_are_the_same_in_a_batch_and_absent_without_a_request(engine):
    mixture = {"one": 1.0}
    alone = traced(engine, mixture)
    recorders = [Recorder() for _ in range(6)]
    for i, recorder in enumerate(recorders):
        ids = PROMPT if i % 2 == 0 else [*PROMPT, i]
        engine.submit(request(ids, mixture, SAMPLED, 10, trace=i % 2 == 0, speculation=i), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    for i, recorder in enumerate(recorders):
        deltas = [event for event in recorder.events if isinstance(event, TextDelta)]
        traces = [trace for delta in deltas for trace in delta.traces]
        if i % 2:
            assert traces == []
            continue
        assert [token for delta in deltas for token in delta.tokens] == alone[0]
        for one, other in zip(traces, alone[1], strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert one.from_small.total_variation == pytest.approx(other.from_small.total_variation, abs=1e-4)


def test_traces_do_not_change_the_text(engine):
    plain = request(PROMPT, {"two": 1.5}, SAMPLED, 16)
    tokens = [i for event in engine.stream(plain) if isinstance(event, TextDelta) for i in event.tokens]
    assert traced(engine, {"two": 1.5}, tokens=16)[0] == tokens


def test_under_a_grammar_traces_are_those_of_the_free_formula(engine, reference):
    mixture = {"one": 1.0}
    tokens, traces = traced(engine, mixture, grammar="start: /[a-c]{6}/")
    assert re.fullmatch("[a-c]{6}", engine.tokenizer.decode(tokens, skip_special_tokens=True))
    check(reference, tokens, traces, mixture)


@pytest.mark.parametrize("draft", ["off", 4])
def test_the_last_delta_counts_the_characters_that_a_stop_string_removes(engine, draft):
    letters = {"trace": True, "grammar": "start: /[a-z]{12}/", "speculation": draft}
    whole, _ = answer(engine, request(PROMPT, {"one": 1.0}, SAMPLED, 12, **letters))
    one = request(PROMPT, {"one": 1.0}, SAMPLED, 12, stop=(whole[5:8],), **letters)
    events = list(engine.stream(one))
    traces = [trace for event in events[:-1] for trace in event.traces]
    text = "".join(event.text for event in events[:-1])
    assert isinstance(events[-1], Finished)
    assert len(traces) == events[-1].completion_tokens
    assert text == whole[:5]
    assert "".join(piece for event in events[:-1] for piece in event.pieces) == whole[:8]
    assert [event.cut for event in events[:-1]] == [0] * (len(events) - 2) + [3]
