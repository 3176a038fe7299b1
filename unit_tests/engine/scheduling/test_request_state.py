"""The state of a request without models: where its answer ends, and what its caller is told."""

import pytest

from langchain_eft.engine.events import Finished, TextDelta, TokenLogprobs
from langchain_eft.engine.recipe.schedules import Ramp
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from unit_tests.engine.scheduling.states import END, TOKENIZER, ids, new_state
from unit_tests.helpers import GREEDY, Recorder

PROMPT = ids("prompt")


def outcome(tokens, **kwargs) -> RowOutcome:
    """A round whose draft was accepted whole."""
    return RowOutcome(tuple(tokens), Draft("model", len(tokens) - 1), tuple(tokens[:-1]), **kwargs)


def accept(state, *rounds) -> list[int]:
    """What each round adds, in tokens; everything is delivered."""
    taken = [state.accept(outcome(tokens)) for tokens in rounds]
    state.deliver()
    return taken


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_round_appends_its_tokens_to_every_prompt(recorder):
    state = new_state(PROMPT, {"guided": 1.0}, recorder, contexts={"guided": (9, 8, 7)})
    assert accept(state, ids("ab"), ids("c")) == [2, 1]
    assert state.tokens == [*PROMPT, *ids("abc")]
    assert state.prompts["guided"].tokens == [9, 8, 7, *ids("abc")]
    assert (state.num_output_tokens, state.remaining_tokens) == (3, 29)
    assert recorder.text == "abc"
    assert not state.ended


def test_an_end_token_ends_the_answer_and_drops_what_follows(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder)
    assert accept(state, [*ids("ab"), END, *ids("cd")]) == [3]
    assert state.finished == "stop"
    assert state.tokens == [*PROMPT, *ids("ab"), END]
    assert recorder.events[0] == TextDelta("ab", (*ids("ab"), END), ("a", "b", ""))


def test_an_end_token_has_no_text_even_where_special_tokens_are_visible(recorder):
    user = TOKENIZER.convert_tokens_to_ids("<user>")
    state = new_state(PROMPT, {"one": 1.0}, recorder, visible_tokens=frozenset({END, user}))
    accept(state, [*ids("a"), user, END])
    assert recorder.text == "a<user>"


def test_the_last_token_ends_the_answer_by_length(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder, max_tokens=3)
    assert accept(state, ids("ab"), ids("cde")) == [2, 1]
    assert state.finished == "length"
    assert (recorder.text, recorder.events[-1].reason) == ("abc", "length")


def test_a_stop_string_is_cut_off_wherever_the_rounds_divide_it(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder, stop=("never", "STOP"))
    assert accept(state, ids("one S"), ids("TOP and more")) == [5, 3]
    assert state.finished == "stop"
    first, second, end = recorder.events
    assert (first.text, second.text) == ("one ", "")
    assert second.pieces == ("T", "O", "P")
    assert second.cut == len("STOP")
    assert end.completion_tokens == 8


def test_a_stop_string_that_does_not_come_is_text_at_the_end(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder, stop=("STOP",))
    accept(state, ids("S"), ids("T"), [END])
    assert [event.text for event in recorder.events[:-1]] == ["", "", "ST"]
    assert state.finished == "stop"


def test_a_stop_string_in_the_last_token_is_a_stop_not_a_length():
    state = new_state(PROMPT, {"one": 1.0}, stop=("b",), max_tokens=2)
    accept(state, ids("ab"))
    assert state.finished == "stop"


def test_a_grammar_ends_the_answer_when_nothing_can_follow(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder, grammar='start: "ab"')
    assert accept(state, ids("abc")) == [2]
    assert (state.finished, recorder.text) == ("stop", "ab")


def test_a_character_of_several_tokens_belongs_to_its_last(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder)
    accept(state, ids("aé"), ids("b"))
    assert recorder.events[0].pieces == ("a", "", "é")
    assert recorder.text == "aéb"


def test_pieces_and_log_probabilities_stand_beside_the_tokens_that_are_taken(recorder):
    logprobs = tuple(TokenLogprobs(-float(i), ((i, -float(i)),)) for i in range(5))
    state = new_state(PROMPT, {"one": 1.0}, recorder, top_logprobs=1, max_tokens=3)
    state.accept(outcome(ids("abcde"), logprobs=logprobs))
    state.deliver()
    delta = recorder.events[0]
    assert delta.tokens == tuple(ids("abc"))
    assert delta.pieces == ("a", "b", "c")
    assert delta.logprobs == logprobs[:3]


def test_the_summary_counts_drafts_passes_and_prompts(recorder):
    state = new_state(PROMPT, {"guided": 1.0}, recorder, contexts={"guided": (9, 8, 7)}, max_tokens=4)
    state.accept(outcome(ids("abc")))
    state.accept(RowOutcome(tuple(ids("d")), Draft("model", 2), tuple(ids("xy"))))
    state.deliver()
    end = recorder.events[-1]
    assert isinstance(end, Finished)
    assert (end.prompt_tokens, end.context_tokens, end.completion_tokens) == (6, {"guided": 3}, 4)
    assert (end.drafted_tokens, end.accepted_tokens, end.verify_passes) == (4, 2, 2)
    assert 0 < end.time_to_first_token <= end.seconds


def test_the_last_token_is_never_computed_yet():
    state = new_state(PROMPT, {"one": 1.0})
    prompt = state.prompts[""]
    prompt.num_computed_tokens = len(PROMPT) + 5  # a round that computed guesses beyond the end
    accept(state, ids("ab"))
    assert prompt.num_uncomputed_tokens == 1
    assert state.decoding


def test_nothing_is_delivered_twice_or_to_a_caller_that_has_left(recorder):
    state = new_state(PROMPT, {"one": 1.0}, recorder)
    accept(state, ids("a"))
    state.deliver()
    assert recorder.text == "a"
    state.accept(outcome(ids("b")))
    state.generation.cancel()
    state.deliver()
    assert state.ended
    assert recorder.text == "a"


@pytest.mark.parametrize(
    "asked",
    [
        {"grammar": 'start: "a"'},
        {"sampling": GREEDY.model_copy(update={"presence_penalty": 0.5})},
        {"trace": True},
    ],
    ids=["grammar", "penalty", "trace"],
)
def test_draws_depend_on_earlier_tokens_under_grammars_and_penalties_and_traces_do(asked):
    assert not new_state(PROMPT, {"one": Ramp(start=0, end=1, tokens=3)}).draws_depend_on_tokens
    assert new_state(PROMPT, {"one": 1.0}, **asked).draws_depend_on_tokens
