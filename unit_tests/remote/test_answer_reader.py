"""Events from token ids: those that the engine makes of the same tokens."""

import itertools
import random

import pytest

from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.events import Finished, TextDelta, TokenLogprobs
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.remote.answer_reader import AnswerReader, Piece
from langchain_eft.remote.remote_model import RemoteModel
from unit_tests.engine.scheduling.states import END, TOKENIZER, ids, new_state
from unit_tests.helpers import Recorder, request

PROMPT = ids("prompt")
MODEL = RemoteModel(
    id="m", name="m", recipe=Recipe(base="m"), mixture=Mixture(), tokenizer=TOKENIZER,
    end_ids=frozenset({END}), capacity=Capacity(max_model_len=100, num_blocks=100, block_size=1),
)  # fmt: skip
USER = TOKENIZER.convert_tokens_to_ids("<user>")


def new_reader(**kwargs) -> AnswerReader:
    return AnswerReader(request(PROMPT, **kwargs), MODEL, submitted=0.0)


def read(reader, rounds, reason, *, together) -> list[TextDelta]:
    """What a server's pieces become: one for each round, and the end in the last one or behind it."""
    pieces = [Piece(tokens) for tokens in rounds]
    if together:
        pieces[-1] = Piece(rounds[-1], reason=reason)
    else:
        pieces.append(Piece(reason=reason))
    return [delta for piece in pieces if (delta := reader.feed(piece)) is not None]


def engine_events(rounds, **kwargs) -> list:
    recorder = Recorder()
    state = new_state(PROMPT, {"one": 1.0}, recorder, **kwargs)
    for tokens in rounds:
        if not state.finished:
            state.accept(RowOutcome(tuple(tokens), Draft("model", len(tokens) - 1), tuple(tokens[:-1])))
    state.deliver()
    return recorder.events


ANSWERS = {
    "end token": ([*ids("ab"), END], {}),
    "end token in the middle of a round": ([*ids("ab"), END, *ids("cd")], {}),
    "length": (ids("abcdef"), {"max_tokens": 6}),
    "stop string": (ids("so it goes. And then"), {"stop": (". A", "zz")}),
    "stop string over two rounds": (ids("so it goes on"), {"stop": ("goes",)}),
    "half a stop string at the end": ([*ids("it go"), END], {"stop": ("goes",)}),
    "stop string in the last token": (ids("abc"), {"stop": ("c",), "max_tokens": 3}),
    "characters of several tokens": ([*ids("Ça va 你好 🐳!"), END], {}),
    "half a character at the end": ([*ids("ab"), *ids("🐳")[:2]], {"max_tokens": 4}),
    "visible special tokens": ([USER, *ids("x"), USER, END], {"visible_tokens": frozenset({USER, END})}),
    "hidden special tokens": ([USER, *ids("x"), END], {}),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_events_are_those_of_the_engine(answer):
    """In rounds of any size, with the end in the last piece or behind it."""
    tokens, settings = ANSWERS[answer]
    for size, together in itertools.product([1, 2, 3, 50], [False, True]):
        rounds = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        *deltas, end = engine_events(rounds, **settings)
        reader = new_reader(**settings)
        assert read(reader, rounds, end.reason, together=together) == deltas, (size, together)
        finished = reader.finished(reader.reason)
        same = ("reason", "prompt_tokens", "completion_tokens")
        assert [getattr(finished, name) for name in same] == [getattr(end, name) for name in same]


def test_a_grammar_that_is_complete_ends_the_answer_behind_its_last_token():
    """Only the server knows grammars: text that was held back for a stop string comes with the end."""
    reader = new_reader(stop=("goes",))
    deltas = read(reader, [ids("it go")], "stop", together=False)
    assert "".join(delta.text for delta in deltas) == "it go"
    assert reader.reason == "stop"
    assert [delta.tokens for delta in deltas] == [tuple(ids("it go")), ()]


def test_the_beginning_that_the_caller_gave_counts_for_the_prompt():
    reader = new_reader(answer_prefix=tuple(ids("so ")), max_tokens=5)
    deltas = read(reader, [ids("so "), ids("it")], "length", together=False)
    assert [delta.text for delta in deltas] == ["so ", "it"]
    end = reader.finished("length")
    assert (end.prompt_tokens, end.completion_tokens) == (len(PROMPT) + 3, 2)


def test_the_first_token_is_timed_behind_the_given_beginning():
    reader = new_reader(answer_prefix=tuple(ids("so ")))
    reader.feed(Piece(ids("so ")))
    assert reader._first_token is None
    reader.feed(Piece(ids("i")))
    assert reader._first_token is not None


def test_what_a_server_does_not_count_is_not_reported_as_nothing():
    reader = new_reader()
    read(reader, [[*ids("a"), END]], "stop", together=True)
    assert reader.finished("stop").unreported == {
        "cached_tokens", "drafted_tokens", "accepted_tokens", "verify_passes"
    }  # fmt: skip
    reader.feed(Piece(counters={"cached_tokens": 4, "drafted_tokens": 3}, context_tokens={"guided": 9}))
    end = reader.finished("stop")
    assert (end.cached_tokens, end.drafted_tokens, end.accepted_tokens) == (4, 3, 0)
    assert end.unreported == {"accepted_tokens", "verify_passes"}
    assert end.context_tokens == {"guided": 9}


def test_no_more_alternatives_are_reported_than_asked_for():
    entry = TokenLogprobs(-1.0, ((5, -0.5), (6, -1.0), (7, -2.0)))
    reader = new_reader(top_logprobs=2)
    (delta,) = [reader.feed(Piece(ids("a"), logprobs=[entry]))]
    assert delta.logprobs == (TokenLogprobs(-1.0, ((5, -0.5), (6, -1.0))),)


def test_random_answers_are_those_of_the_engine():
    chance = random.Random(0)
    for _ in range(200):
        tokens = [chance.choice([END, USER, *ids("aß🐳 .")]) for _ in range(chance.randint(1, 12))]
        settings = {
            "max_tokens": chance.randint(1, 12),
            "stop": tuple(chance.sample([".", "a.", "ß ", "🐳"], chance.randint(0, 2))),
            "visible_tokens": frozenset(chance.sample([USER, END], chance.randint(0, 2))),
        }
        rounds, rest = [], tokens
        while rest:
            size = chance.randint(1, 4)
            rounds.append(rest[:size])
            rest = rest[size:]
        expected = engine_events(rounds, **settings)
        reader = new_reader(**settings)
        ended = isinstance(expected[-1], Finished)
        if ended:
            *deltas, end = expected
            assert read(reader, rounds, end.reason, together=chance.random() < 0.5) == deltas
            assert reader.reason == end.reason
        else:
            assert [reader.feed(Piece(tokens)) for tokens in rounds] == expected
