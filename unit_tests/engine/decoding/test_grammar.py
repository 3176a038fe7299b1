"""Grammars restrict the answer and nothing else: samples follow p, and log-probabilities are those of p."""

import gc
import json

import llguidance
import llguidance.hf
import numpy as np
import pytest
import torch
from llguidance import LLParserLimits
from scipy import stats

from langchain_eft.engine.decoding.grammar import Grammar
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import GREEDY, Recorder, answer, request, wait_until

PROMPT = [7, 30, 9, 61, 61, 12]
OBJECT = (
    'start: %json {"x-guidance": {"whitespace_flexible": false}, "type": "object", "properties": '
    '{"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}, '
    '"required": ["name", "age"], "additionalProperties": false}'
)
MIXTURES = [{"one": 1.0}, {"one": 0.5, "full": 0.8}, {}]


@pytest.mark.slow
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(temperature=1.3, seed=4)])
def test_answers_follow_the_grammar_and_are_the_same_for_every_draft_length(engine, mixture, sampling):
    texts = set()
    for draft in ("off", 1, 4, "auto"):
        one = request(PROMPT, mixture, sampling, 120, grammar=OBJECT, speculation=draft)
        text, end = answer(engine, one)
        assert end.reason == "stop"
        texts.add(text)
    value = json.loads(texts.pop())
    assert not texts
    assert set(value) == {"name", "age"}
    assert 0 <= value["age"] <= 99


def test_forced_tokens_are_draft_tokens_that_are_always_accepted(engine):
    fixed = 'start: "exactly this text" /[ab]/'
    text, end = answer(engine, request(PROMPT, {"one": 1.0}, GREEDY, 60, grammar=fixed, speculation=8))
    assert text[:-1] == "exactly this text"
    assert end.accepted_tokens == end.drafted_tokens >= 15
    assert end.verify_passes <= 6


@pytest.mark.slow
def test_samples_within_a_grammar_follow_p_restricted_to_it(engine, reference):
    """Chi-squared of two letters, of which the second is a verified draft token."""
    n, letters = 1200, "abcd"
    ids = [engine.tokenizer.convert_tokens_to_ids(letter) for letter in letters]
    recorders = [Recorder() for _ in range(n)]
    for seed, recorder in enumerate(recorders):
        params = SamplingParams(temperature=1.5, seed=seed)
        one = request(PROMPT, {"one": 1.0}, params, 2, grammar="start: /[abcd][abcd]/", speculation=2)
        engine.submit(one, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))

    def restricted(prompt):
        return (reference.logprobs(prompt, {"one": 1.0})[ids] / 1.5).softmax(-1)

    first = restricted(PROMPT)
    expected = torch.stack([n * p * restricted([*PROMPT, i]) for i, p in zip(ids, first, strict=True)])
    counts = torch.zeros(4, 4)
    for recorder in recorders:
        one, two = recorder.tokens[:2]
        counts[ids.index(one), ids.index(two)] += 1
    common = expected >= 5
    observed, predicted = counts[common].tolist(), expected[common].tolist()
    if not common.all():
        observed.append(float(counts[~common].sum()))
        predicted.append(float(expected[~common].sum()))
    total = sum(predicted)
    assert stats.chisquare(observed, [x * n / total for x in predicted]).pvalue > 1e-4


def test_grammars_stops_and_plain_rows_share_a_batch(engine, reference):
    work = []
    for i in range(9):
        recorder = Recorder()
        grammar = OBJECT if i % 3 == 0 else None
        engine.submit(
            request([*PROMPT, i + 20], MIXTURES[i % 3], GREEDY, 80 if grammar else 12, grammar=grammar),
            recorder,
        )
        work.append((i, recorder))
    wait_until(lambda: all(recorder.ended for _, recorder in work))
    for i, recorder in work:
        if i % 3 == 0:
            json.loads(recorder.text)
        else:
            assert recorder.tokens == reference.greedy([*PROMPT, i + 20], MIXTURES[i % 3], 12)


def test_a_grammar_that_does_not_compile_is_refused(engine):
    with pytest.raises(RequestError, match=r"start: \["):
        engine.submit(request(PROMPT, grammar="start: ["), Recorder())


@pytest.mark.parametrize("limits", [{"max_lexer_states": 30}, {"step_lexer_fuel": 20}])
def test_a_grammar_that_gives_up_on_an_answer_is_an_error_and_no_end(engine, limits):
    tokenizer = llguidance.hf.from_tokenizer(engine.tokenizer)
    hard = llguidance.grammar_from("lark", 'start: /[ab]*a[ab]{8}/ "x"')
    matcher = llguidance.LLMatcher(tokenizer, hard, log_level=0, limits=LLParserLimits(**limits))
    no_ends = np.zeros(-(-tokenizer.vocab_size // 32), dtype=np.int32)
    grammar = Grammar(matcher, tokenizer.vocab_size, no_ends)

    def follow(letters):
        for letter in letters:
            assert not grammar.complete
            assert grammar.mask()[engine.tokenizer.convert_tokens_to_ids(letter)]
            grammar.consume(engine.tokenizer.convert_tokens_to_ids(letter))

    with pytest.raises(RequestError, match=r"cannot follow the answer \(lexer error: too many"):
        follow("abaabbabbabaababaa")


@pytest.mark.parametrize("draft", ["off", 3])
def test_logprobs_are_those_of_the_formula(engine, reference, draft):
    mixture = {"one": 0.7, "two": 0.6}
    params = SamplingParams(temperature=0.8, top_p=0.9, seed=2)
    one = request(PROMPT, mixture, params, 8, speculation=draft, top_logprobs=3)
    deltas = [event for event in engine.stream(one) if isinstance(event, TextDelta)]
    tokens = [token for delta in deltas for token in delta.tokens]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    expected = reference.all_logprobs([*PROMPT, *tokens[:-1]], len(tokens), mixture)
    assert len(entries) == len(tokens)
    for token, entry, row in zip(tokens, entries, expected, strict=True):
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [i for i, _ in entry.top] == row.topk(3).indices.tolist()


def test_special_tokens_are_part_of_the_text_if_the_request_says_so(engine):
    user = engine.tokenizer.convert_tokens_to_ids("<user>")
    params = GREEDY.model_copy(update={"logit_bias": {user: 100.0}})
    assert answer(engine, request(PROMPT, {}, params, 3))[0] == ""
    text, _ = answer(engine, request(PROMPT, {}, params, 3, visible_tokens=frozenset({user})))
    assert text == "<user><user><user>"


@pytest.mark.slow
def test_grammars_of_answers_that_ended_are_freed(engine):
    for number in range(40):
        text, _ = answer(engine, request(PROMPT, {}, GREEDY, 20, grammar=f'start: "number {number}"'))
        assert text == f"number {number}"
    gc.collect()
    assert sum(type(each) is Grammar for each in gc.get_objects()) <= 1
