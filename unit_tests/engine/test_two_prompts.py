"""Terms that read different texts: each of them begins its answer behind its own text's last token."""

import pytest
import torch
from scipy import stats as statistics

from langchain_eft.engine.recipe.behaviors import BASE, BehaviorDelta
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, engine_of, every_family_with, request, wait_until

LENGTHS = [(9, 5), (17, 13), (16, 12), *((total - 15, 15) for total in range(31, 36)), (33, 33)]
"""Of the tuned models' and the base's text: whole blocks and one more token, chunks and a few more tokens."""


@pytest.fixture(params=["compact", "overlapped"])
def engine(family, request):
    recipe = family.recipe.model_copy(
        update={
            "behaviors": {
                **family.recipe.behaviors,
                "told": BehaviorDelta(prompt="Be brief.", adapter=str(family.folder / "one")),
            },
            "base_template": "transcript",
            "unscaled_tokens": (),
        }
    )
    with engine_of(
        recipe, request.param, kv_cache_tokens=4096, block_size=4, max_num_batched_tokens=32,
        max_queued_requests=1000,
    ) as engine:  # fmt: skip
        yield engine


def texts(lengths, seed=0):
    """The tuned models', the base's and the instructed model's text; each ends in a token of its own."""
    main, bare = lengths
    generator = torch.Generator().manual_seed(100 * main + bare + seed)
    drawn = torch.randint(10, 90, (main + bare + 7,), generator=generator).tolist()
    return [*drawn[: main - 1], 91], [*drawn[main : main + bare - 1], 92], [*drawn[main + bare :], 93]


def requests(lengths, seed=0, **details):
    """Requests of different mixtures over the same texts."""
    main, bare, told = texts(lengths, seed)
    contexts = {BASE: tuple(bare), "told": tuple(told)}
    return [
        request(main, mixture, contexts=contexts, **details)
        for mixture in ({"one": 1.0}, {"one": 0.6, "full": 0.7}, {"told": 0.9})
    ]


def summands(reference, lengths, seed=0):
    """What adds up to log p of each of `requests`."""
    main, bare, told = texts(lengths, seed)
    base, small, one, full = (
        reference.base, *(reference.small[name] for name in ("reference", "one", "full"))
    )  # fmt: skip
    return [
        [(1, base, bare), (1, one, main), (-1, small, bare)],
        [(1, base, bare), (0.6, one, main), (0.7, full, main), (-1.3, small, bare)],
        [(1, base, bare), (0.9, one, told), (-0.9, small, bare)],
    ]


@pytest.fixture(scope="module")
def expected(reference):
    """Tokens and their log-probabilities of every greedy answer, for two seeds of the texts."""

    def of_seed(seed):
        for lengths in LENGTHS:
            for sums in summands(reference, lengths, seed):
                tokens = reference.loop(sums, 3)
                yield tokens, reference.mixed(sums, tokens[:-1])[range(len(tokens)), tokens]

    return [list(of_seed(seed)) for seed in (0, 1)]


@pytest.mark.slow
@every_family_with("speculation", 3, "off")
def test_greedy_answers_at_every_border_of_chunks_and_blocks(engine, expected, speculation):
    details = {"max_tokens": 3, "speculation": speculation, "top_logprobs": 0}
    asked, others = (
        [each for lengths in LENGTHS for each in requests(lengths, seed, **details)] for seed in (0, 1)
    )
    alone = [list(engine.stream(each)) for each in asked]
    cached = [list(engine.stream(each)) for each in asked]
    together = [list(stream) for stream in [engine.stream(each) for each in others]]
    for answers, wanted in ((alone, expected[0]), (cached, expected[0]), (together, expected[1])):
        for events, (tokens, logprobs) in zip(answers, wanted, strict=True):
            assert [token for event in events[:-1] for token in event.tokens] == tokens
            reported = torch.tensor([each.logprob for event in events[:-1] for each in event.logprobs])
            torch.testing.assert_close(reported.double(), logprobs, atol=2e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen"], indirect=True)
def test_first_tokens_follow_p(engine, reference):
    """Most of these prompts come from the prefix cache, up to their last tokens."""
    lengths, n = (9, 5), 600
    recorders = [Recorder() for _ in range(n)]
    for seed, recorder in enumerate(recorders):
        sampling = SamplingParams(temperature=1.4, seed=seed)
        engine.submit(requests(lengths, sampling=sampling, max_tokens=2, speculation=1)[1], recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    firsts = torch.tensor([recorder.tokens[0] for recorder in recorders])
    expected = (reference.mixed(summands(reference, lengths)[1], [])[-1] / 1.4).softmax(-1) * n
    common = (expected >= 5).nonzero().flatten()
    counts = firsts.bincount(minlength=len(expected))[common].tolist()
    predicted = expected[common].tolist()
    observed, rest = [*counts, n - sum(counts)], n - sum(predicted)
    assert statistics.chisquare(observed, [*predicted, rest]).pvalue > 1e-4
