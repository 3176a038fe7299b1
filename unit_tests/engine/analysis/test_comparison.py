"""Comparisons of models along an answer equal those of full forwards."""

import pytest
import torch

from langchain_eft.engine.errors import ContextWindowError, RequestError
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import request

PROMPT = (7, 30, 9, 61, 61, 12)
ANSWER = tuple(range(40, 60))


@pytest.mark.parametrize("name", ["one", "full"])
def test_figures_are_those_of_full_forwards(engine, reference, name):
    comparison = engine.compare(request(PROMPT, {name: 0.8}, SamplingParams(temperature=1.0)), ANSWER)
    text = [*PROMPT, *ANSWER[:-1]]

    @torch.inference_mode()
    def log_probs(model):
        return model(torch.tensor([text])).logits[0, -len(ANSWER) :].double().log_softmax(-1)

    models = (reference.base, reference.small[name], reference.small["reference"])
    base, tuned, small = map(log_probs, models)
    target = reference.all_logprobs(text, len(ANSWER), {name: 0.8})
    draft = reference.all_logprobs(text, len(ANSWER), {name: 0.8}, strength=0.0)

    def tv(p, q):
        return (p.exp() - q.exp()).abs().sum(-1) / 2

    def kl(p, q):
        return (p.exp() * (p - q)).sum(-1)

    probable = (tuned.exp() >= 0.01) | (small.exp() >= 0.01)
    expected = {
        "base": base[range(len(ANSWER)), ANSWER],
        "tuned": tuned[range(len(ANSWER)), ANSWER],
        "reference": small[range(len(ANSWER)), ANSWER],
        "same_first": (base.argmax(-1) == small.argmax(-1)).double(),
        "tv_base_reference": tv(base, small),
        "kl_base_reference": kl(base, small),
        "tv_base_tuned": tv(base, tuned),
        "tv_tuned_reference": tv(tuned, small),
        "kl_tuned_reference": kl(tuned, small),
        "delta": torch.stack(
            [(t - s).abs()[k].mean() for t, s, k in zip(tuned, small, probable, strict=True)]
        ),
        "tv_target_base": tv(target, base),
        "entropy_target": -(target.exp() * target).sum(-1),
        "entropy_tuned": -(tuned.exp() * tuned).sum(-1),
        "masked": torch.zeros(len(ANSWER)),
        "end_base": base[:, 0],
        "end_tuned": tuned[:, 0],
        "end_reference": small[:, 0],
        "accepted": 1 - tv(target, draft),
    }
    for figure, values in expected.items():
        assert getattr(comparison, figure) == pytest.approx(values.tolist(), abs=2e-3), figure


def test_greedy_drafts_are_accepted_where_p_and_q_choose_the_same_token(engine, reference):
    comparison = engine.compare(request(PROMPT, {"one": 1.0}), ANSWER)
    text = [*PROMPT, *ANSWER[:-1]]
    target = reference.all_logprobs(text, len(ANSWER), {"one": 1.0}).argmax(-1)
    draft = reference.all_logprobs(text, len(ANSWER), {"one": 1.0}, strength=0.0).argmax(-1)
    assert comparison.accepted == (target == draft).double().tolist()


def test_invalid_comparisons_are_refused(engine):
    with pytest.raises(RequestError, match="one behavior"):
        engine.compare(request(PROMPT, {"one": 1.0, "two": 1.0}), ANSWER)
    with pytest.raises(RequestError, match="no tokens"):
        engine.compare(request(PROMPT, {"one": 1.0}), ())
    with pytest.raises(ContextWindowError):
        engine.compare(request(PROMPT, {"one": 1.0}), tuple([5] * 2000))
