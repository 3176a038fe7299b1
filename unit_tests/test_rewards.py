"""Rewards are the log ratio of tuned model and reference."""

import asyncio

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage

from langchain_eft import EFTChatModel, EFTRewardScorer


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


def test_scores_are_the_log_ratio_of_tuned_and_reference(llm, reference):
    scorer = EFTRewardScorer(llm, "one", beta=0.5)
    answers = ["good", AIMessage("rather bad"), "", "x" * 40]
    question = "which of the two, if any, is it?"
    scores = scorer.invoke({"prompt": question, "answers": answers})
    tokenizer = llm.engine.tokenizer
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    for score, said in zip(scores, ["good", "rather bad", "", "x" * 40], strict=True):
        ids = [*tokenizer(said).input_ids, 0]
        text = [*prompt, *ids[:-1]]
        small = reference.all_logprobs(text, len(ids), {"one": 1.0}, strength=0.0)
        plain = reference.all_logprobs(text, len(ids), {"one": 0.0}, strength=0.0)
        ratio = (small - plain)[range(len(ids)), ids].sum()
        assert score == pytest.approx(0.5 * float(ratio), abs=2e-3)
    best = scorer.best().invoke({"prompt": question, "answers": answers})
    assert best is answers[scores.index(max(scores))]
    assert asyncio.run(scorer.ainvoke({"prompt": question, "answers": answers})) == pytest.approx(scores)
    assert asyncio.run(scorer.best().ainvoke({"prompt": question, "answers": answers})) is best
    alone = [scorer.invoke({"prompt": question, "answers": [answer]})[0] for answer in answers]
    assert alone == pytest.approx(scores, abs=1e-3)


def test_scoring_refuses_what_it_cannot_score(llm):
    with pytest.raises(ModelInvalidRequestError, match="nobody"):
        EFTRewardScorer(llm, "nobody").invoke({"prompt": "x", "answers": ["y"]})
    with pytest.raises(ModelInvalidRequestError, match="answers"):
        EFTRewardScorer(llm).invoke({"prompt": "x", "answers": []})
