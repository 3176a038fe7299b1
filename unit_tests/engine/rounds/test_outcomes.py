"""What the host reads of a round."""

import torch

from langchain_eft.engine.rounds.outcomes import output_fields, read_outcomes
from langchain_eft.engine.rounds.shape import kind_of, shape_of
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.scheduling.draft import Draft
from unit_tests.engine.scheduling.states import new_state


def test_outcomes_hold_the_accepted_tokens_and_the_next_one_of_rows_that_go_on():
    state, cancelled = new_state([5], {"one": 1.0}), new_state([6], {"one": 1.0})
    cancelled.generation.cancel()
    drafts = {state: Draft("model", 3), cancelled: Draft("model", 3)}
    shape = shape_of(kind_of(list(drafts))[0], drafts, {}, None)
    content = PackedTensors(output_fields(shape), torch.device("cpu"))
    content["draft_tokens"][0] = torch.tensor([11, 12, 13])
    content["count"][:] = 3
    content["tokens"][0] = torch.tensor([11, 12, 99, 98])
    content["accepted"][0] = 2
    content["draft_samples"][0] = torch.tensor([11, 12, 13, -1])
    outcomes = read_outcomes(content, shape, drafts)
    assert list(outcomes) == [state]
    outcome = outcomes[state]
    assert (outcome.tokens, outcome.draft_tokens, outcome.num_accepted) == ([11, 12, 99], [11, 12, 13], 2)
    assert outcome.draft_samples == [11, 12, 13]
