"""Packed rounds: what a failed round leaves behind does not touch the next one of its shape."""

import pytest

from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds import packed
from unit_tests.helpers import answer, request


def drafted(prompt, seed):
    """A sampled request whose rounds draft two tokens."""
    sampling = SamplingParams(temperature=1.5, seed=seed)
    return request(prompt, {"one": 1.0}, sampling, max_tokens=12, speculation=2)


def test_a_round_that_fails_after_drafting_leaves_no_samples_for_the_next(engine, monkeypatch):
    expected = answer(engine, drafted([5, 6, 7], seed=1))[0]
    forward, passes = packed.forward, []

    def fail_at_the_first_verify_pass(*args):
        passes.append(1)
        if len(passes) == 4:  # after the prompt and two drafts
            raise RuntimeError("device lost")
        return forward(*args)

    with monkeypatch.context() as patch:
        patch.setattr(packed, "forward", fail_at_the_first_verify_pass)
        with pytest.raises(DecodingError, match="device lost"):
            answer(engine, drafted([9, 8, 7], seed=2))
    assert len(passes) == 4
    assert answer(engine, drafted([5, 6, 7], seed=1))[0] == expected
