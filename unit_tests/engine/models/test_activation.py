"""Activated adapters act from their last invocation on, as in PEFT; what comes before is computed once."""

from collections import defaultdict
from contextlib import nullcontext

import pytest
import torch

from langchain_eft.engine.models.activation import Share, shares
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import GivenAnswers
from unit_tests.activated import INVOCATIONS, activated_recipe, peft_reference
from unit_tests.helpers import Recorder, endless, engine_of, request, wait_until, without_kernels

INVOCATION, OTHER = INVOCATIONS["judge"], INVOCATIONS["cite"]
BLOCK = 4
JUDGE = 3  # the variant: the family has two more adapters
TEXT = [7, 30, 9, 61, 12, 99, 100, 101, 102, 103, 104, 105, 106, 107]

PROMPTS = {
    "absent": TEXT,
    "first tokens only": [*TEXT, *INVOCATION[:2]],
    "at the beginning": [*INVOCATION, *TEXT],
    "at the end": [*TEXT[:9], *INVOCATION],
    "at the border of a block": [*TEXT[:8], *INVOCATION, 40, 41],
    "before the border": [*TEXT[:7], *INVOCATION, 40, 41, 42],
    "twice": [*TEXT[:5], *INVOCATION, *TEXT[5:], *INVOCATION, 44],
    "far behind": [*(TEXT * 6), *INVOCATION, *TEXT[:6]],
}


@pytest.fixture(scope="module")
def recipe(family, tmp_path_factory):
    return activated_recipe(family, tmp_path_factory.mktemp("activated"))


@pytest.fixture(scope="module")
def oracle(family, recipe):
    return peft_reference(family, recipe)


SETTINGS = {"kv_cache_tokens": 1024, "block_size": BLOCK, "max_num_batched_tokens": 32}


@pytest.fixture(params=["compact", "overlapped", "by torch"])
def engine(recipe, request):
    by_torch = request.param == "by torch"
    kind = "compact" if by_torch else request.param
    with without_kernels() if by_torch else nullcontext(), engine_of(recipe, kind, **SETTINGS) as engine:
        yield engine


@pytest.fixture
def compact(recipe):
    with engine_of(recipe, **SETTINGS) as engine:
        yield engine


@pytest.fixture
def positions_run(monkeypatch):
    """Positions that the small model runs, by variant."""
    run, seen = CausalModel.__call__, defaultdict(list)

    def counting(model, batch, *args, **kwargs):
        if model.invocations:
            for variant, position in zip(batch.variants.tolist(), batch.positions[0].tolist(), strict=True):
                seen[variant].append(position)
        return run(model, batch, *args, **kwargs)

    monkeypatch.setattr(CausalModel, "__call__", counting)
    return seen


def decoded(engine, prompt, mixture, steps=6, **details):
    """The tokens of an answer, and its last event."""
    *deltas, end = engine.stream(request(prompt, mixture, max_tokens=steps, **details))
    return [token for event in deltas for token in event.tokens], end


@pytest.mark.slow
@pytest.mark.parametrize("speculation", [3, "off"])
def test_answers_and_their_log_probabilities_are_those_of_peft(engine, oracle, speculation):
    for _ in range(2):  # the second time, the prefix cache has the prompts
        for prompt in PROMPTS.values():
            for mixture in ({"judge": 1.0}, {"judge": 0.7, "one": 0.5}):
                wanted = oracle.greedy(prompt, mixture, 6)
                details = {"max_tokens": 6, "speculation": speculation, "top_logprobs": 0}
                events = list(engine.stream(request(prompt, mixture, **details)))
                assert [token for event in events[:-1] for token in event.tokens] == wanted
                rows = oracle.all_logprobs([*prompt, *wanted[:-1]], len(wanted), mixture)
                expected = rows[range(len(wanted)), wanted]
                reported = torch.tensor([each.logprob for e in events[:-1] for each in e.logprobs])
                torch.testing.assert_close(reported.double(), expected, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_scores_of_given_answers_are_those_of_peft(engine, oracle):
    answers = ((70, 71, 72), (70, 71, 80), (70, 90), (99,))
    for mixture in ({"judge": 1.0}, {"judge": 0.7, "one": 0.5}):
        given = [GivenAnswers(request(prompt, mixture), answers) for prompt in PROMPTS.values()]
        for _ in range(2):
            scores = engine.answer_logprobs(given)
            for prompt, of_prompt in zip(PROMPTS.values(), scores.logprobs, strict=True):
                for answer, logprobs in zip(answers, of_prompt, strict=True):
                    rows = oracle.all_logprobs([*prompt, *answer[:-1]], len(answer), mixture)
                    expected = rows[range(len(answer)), answer].tolist()
                    assert logprobs == pytest.approx(expected, abs=2e-4)


def test_rewards_are_those_of_peft_and_zero_without_an_invocation(engine, oracle):
    answers = [(70, 71, 72), (70, 80)]
    for name, prompt in PROMPTS.items():
        rewards = engine.score("judge", tuple(prompt), answers)
        for answer, reward in zip(answers, rewards, strict=True):
            ids = [*prompt, *answer[:-1]]
            tuned, reference = (
                oracle.logp(oracle.small[model], ids, len(answer))[range(len(answer)), answer].sum()
                for model in ("judge", "reference")
            )
            assert reward == pytest.approx(float(tuned - reference), abs=2e-4)
        assert (rewards == [0, 0]) == (name in {"absent", "first tokens only"})


def test_what_comes_before_the_invocation_runs_once(compact, positions_run):
    prompt = PROMPTS["far behind"]
    begin = len(TEXT) * 6
    _, end = decoded(compact, prompt, {"judge": 1.0}, 1, speculation="off")
    assert end.cached_tokens == 0
    assert positions_run == {0: [*range(len(prompt))], JUDGE: [*range(begin, len(prompt))]}
    assert compact.stats().prefilled_tokens == len(prompt)


def test_tokens_of_the_invocations_own_block_run_without_the_adapter(compact, positions_run):
    decoded(compact, PROMPTS["before the border"], {"judge": 1.0}, 1, speculation="off")
    assert sorted(positions_run[0]) == sorted([*range(13), 4, 5, 6])
    assert positions_run[JUDGE] == [*range(7, 13)]


def test_activated_adapters_and_their_reference_share_the_prefix_cache(compact, oracle, positions_run):
    text = TEXT[:12]
    decoded(compact, [*text, *OTHER, 50], {"cite": 1.0})
    positions_run.clear()
    prompt = [*text, *INVOCATION]
    tokens, end = decoded(compact, prompt, {"judge": 1.0}, 4, speculation="off")
    assert tokens == oracle.greedy(prompt, {"judge": 1.0}, 4)
    assert end.cached_tokens == len(text)
    assert min(min(positions) for positions in positions_run.values()) == len(text)


@pytest.mark.parametrize("mixture", [{"judge": 1.0}, {"judge": 0.7, "one": 0.4}])
def test_a_later_turn_continues_what_models_without_the_adapter_have_read(compact, oracle, mixture):
    prompt, known = [*TEXT[:10], *INVOCATION], 0
    for _ in range(3):
        tokens, end = decoded(compact, prompt, mixture, speculation=3)
        assert tokens == oracle.greedy(prompt, mixture, 6)
        assert end.cached_tokens == known
        known = (len(prompt) + len(tokens) - 1) // BLOCK * BLOCK
        prompt = [*prompt, *tokens, 45, *INVOCATION]


def test_the_same_prompt_again_is_cached_with_its_adapter(compact, oracle, positions_run):
    prompt = [*TEXT[:7], *INVOCATION, *TEXT]
    for _ in range(2):
        positions_run.clear()
        tokens, _ = decoded(compact, prompt, {"judge": 1.0}, 3, speculation="off")
        assert tokens == oracle.greedy(prompt, {"judge": 1.0}, 3)
    last_block = (len(prompt) - 1) // BLOCK * BLOCK
    assert min(positions_run[0]) == min(positions_run[JUDGE]) == last_block


def test_a_plain_lora_and_other_activated_ones_in_a_batch(compact, oracle):
    mixtures = [{"judge": 1.0}, {"one": 1.0}, {"cite": 0.8, "judge": 0.6}, {"judge": 1.0, "two": 0.5}, {}]
    prompts = [[*TEXT[:n], *OTHER, 33, *INVOCATION, 44 + n] for n in (3, 6, 10)]
    asked = [(prompt, mixture) for prompt in prompts for mixture in mixtures]
    recorders = [Recorder() for _ in asked]
    for (prompt, mixture), recorder in zip(asked, recorders, strict=True):
        compact.submit(request(prompt, mixture, max_tokens=6), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    for (prompt, mixture), recorder in zip(asked, recorders, strict=True):
        assert recorder.tokens == oracle.greedy(prompt, mixture, 6)


def test_preempted_requests_lose_nothing(recipe, oracle):
    prompts = [[60 + n, *TEXT, *INVOCATION, 44] for n in range(4)]
    recorders = [Recorder() for _ in prompts]
    with engine_of(recipe, **{**SETTINGS, "kv_cache_tokens": 120}) as engine:
        for prompt, recorder in zip(prompts, recorders, strict=True):
            engine.submit(request(prompt, {"judge": 1.0}, endless(), 24), recorder)
        wait_until(lambda: all(recorder.ended for recorder in recorders))
        assert engine.stats().preemptions
        texts = [recorder.tokens for recorder in recorders]
        alone = []
        for prompt in prompts:
            engine.submit(request(prompt, {"judge": 1.0}, endless(), 24), recorder := Recorder())
            wait_until(lambda recorder=recorder: recorder.ended)
            alone.append(recorder.tokens)
    assert texts == alone


def test_the_model_itself_begins_a_prompt_that_only_its_adapter_reads(engine, oracle, positions_run):
    main, told = TEXT[:9], [*TEXT[:3], 77, *TEXT[3:12], *INVOCATION, 44]
    details = {"contexts": {"told": tuple(told)}, "speculation": "off"}
    small = oracle.small
    for weight in (1.0, 0.6):
        sums = [(1, oracle.base, main), (weight, small["judge"], told), (-weight, small["reference"], main)]
        assert decoded(engine, main, {"told": weight}, 5, **details)[0] == oracle.loop(sums, 5)
    assert min(positions_run[JUDGE]) == told.index(INVOCATION[0])


def test_a_prompt_without_the_invocation_is_the_bases_own_and_warns_once(
    compact, oracle, caplog, positions_run
):
    for _ in range(2):
        trace = list(compact.stream(request(TEXT, {"judge": 1.0}, max_tokens=5, trace=True)))
        assert [token for event in trace[:-1] for token in event.tokens] == oracle.greedy(TEXT, {}, 5)
    assert [record.getMessage().count("'judge' changes nothing") for record in caplog.records] == [1]
    assert JUDGE not in positions_run


def test_a_model_runs_the_beginning_for_adapters_that_read_without_it():
    itself, plain, early, late = Term(1), Term(1, 1), Term(1, 2, begin=5), Term(1, 3, begin=11)
    elsewhere = Term(1, 2, "told", begin=9)
    assert shares([early, itself, plain], 4) == [Share(itself, 0), Share(plain, 0), Share(early, 4)]
    assert shares([late, early, elsewhere], 4) == [
        Share(itself, 0, 8), Share(Term(1, 0, "told"), 0, 8),
        Share(late, 8), Share(early, 4), Share(elsewhere, 8),
    ]  # fmt: skip
    assert shares([Term(1, 2, begin=3)], 4) == [Share(Term(1, 2, begin=3), 0)]
