"""Requests inside the engine without an engine: a base, a small model with two adapters, and no weights."""

from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.decoding.grammar import Grammars
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import Generation
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.draft_length import AcceptanceRates
from langchain_eft.engine.scheduling.request_state import RequestState
from unit_tests.helpers import Recorder, request
from unit_tests.tiny import tokenizer

BASE, SMALL = Term(0), Term(1)
BEHAVIORS = {
    "one": (Term(1, 1), SMALL),
    "two": (Term(1, 2), SMALL),
    "guided": (Term(1, 0, "guided"), SMALL),
}
END = 0
TOKENIZER = tokenizer()
GRAMMARS = Grammars(TOKENIZER, len(TOKENIZER), {END})


def ids(text: str) -> list[int]:
    return TOKENIZER(text).input_ids


def new_state(prompt, mixture=None, recorder=None, strength=1.0, top_p=1.0, **kwargs) -> RequestState:
    """The state of a new request; `kwargs` are those of `request`."""
    asked = request(prompt, mixture, upscale_strength=strength, upscale_top_p=top_p, **kwargs)
    return RequestState(
        Generation(asked, recorder or Recorder()),
        build_formula(BASE, BEHAVIORS, mixture or {}, strength, top_p),
        TOKENIZER,
        frozenset({END}),
        AcceptanceRates(),
        GRAMMARS.compile(asked.grammar) if asked.grammar else None,
    )


def compute(rows, token=60) -> None:
    """What a round does to its rows: it computes their tokens, and draws `token` for those that emit."""
    for row in rows:
        emits = row.emits
        for name, count in row.counts.items():
            row.state.prompts[name].num_computed_tokens += count
        if emits:
            row.state.accept(RowOutcome((token,), Draft()))
