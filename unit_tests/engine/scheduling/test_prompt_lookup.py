"""Prompt lookup proposes what followed the same tokens before."""

from langchain_eft.engine.scheduling.prompt_lookup import PromptLookup


def test_lookup_proposes_the_tokens_after_the_latest_occurrence():
    lookup = PromptLookup()
    assert lookup.propose([1, 2], 4) == []
    text = [1, 2, 3, 4, 5, 1, 2, 3]
    assert lookup.propose(text, 4) == [4, 5, 1, 2]
    assert lookup.propose(text, 0) == []
    text += [9, 1, 2, 3]
    assert lookup.propose(text, 2) == [9, 1]
    assert lookup.propose([*text, 77], 2) == []
