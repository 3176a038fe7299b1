"""Log p of given answers, and implicit rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, groupby, pairwise, zip_longest
from math import isfinite
from operator import and_, eq, itemgetter, sub
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from langchain_eft.engine.analysis.kv_memory import KVMemory
from langchain_eft.engine.analysis.target import Target
from langchain_eft.engine.analysis.term_outputs import Outputs, Place, Reading, Steps, term_outputs
from langchain_eft.engine.analysis.text_tree import Answers
from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.models.causal_model import project
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.request import AnswerScores

_ROWS = 64
"""Positions whose logits are computed at once; it bounds the memory of logits."""

_TOKENS_PER_GROUP = 2048
"""Most tokens of answers whose outputs are kept at once, while one model runs after the other."""

T = TypeVar("T")


@dataclass(frozen=True)
class ScoredPrompt:
    """Answers to one prompt, whose log p is asked for."""

    formula: Formula[Term]  # p
    prompts: Mapping[str, tuple[int, ...]]  # token ids that terms read, by the terms' names for them
    answers: Answers  # token ids of each answer, at least one each


class _Token(NamedTuple):
    """A token whose log p is wanted: the numbers of prompt and answer, and of tokens before it there."""

    prompt: int
    answer: int
    length: int


class _Position(NamedTuple):
    """A position at which p is wanted."""

    prompt: int  # number of the prompt
    length: int  # tokens of the answer before it
    places: tuple[Place, ...]  # what each term says there


def rewards(
    family: ModelFamily,
    memory: KVMemory,
    tuned: tuple[Term, tuple[int, ...]],
    reference: tuple[Term, tuple[int, ...]],
    answers: Answers,
) -> Steps[list[float]]:
    """The implicit reward of answers: `sum_t log F(y_t | ...) - log S(y_t | ...)`.

    Args:
        family: The loaded models.
        memory: Where keys and values are meanwhile.
        tuned: The term of F, and the token ids of its prompt.
        reference: The term of S, and the token ids of its prompt.
        answers: Token ids of each answer, at least one each.

    Returns:
        One reward for each answer, in nats.
    """
    prompts = [
        ScoredPrompt(build_formula(term, {}, {}), {term.prompt_name: prompt}, answers)
        for term, prompt in (tuned, reference)
    ]
    scores = yield from answer_logprobs(family, memory, prompts)
    return [sum(map(sub, f, s)) for f, s in zip(*scores.logprobs, strict=True)]


def answer_logprobs(
    family: ModelFamily, memory: KVMemory, prompts: Sequence[ScoredPrompt]
) -> Steps[AnswerScores]:
    """Log p of every token of given answers, before penalties, temperature and filters.

    Raises:
        DecodingError: A model's outputs are NaN, or log p is not finite.
    """
    target = Target(family, [prompt.formula for prompt in prompts])
    logprobs = [[[0.0] * len(answer) for answer in prompt.answers] for prompt in prompts]
    pairs = ((i, j) for i, prompt in enumerate(prompts) for j in range(len(prompt.answers)))
    cached: list[int] = []
    for group in _groups(pairs, lambda pair: len(prompts[pair[0]].answers[pair[1]])):
        answers_of = {i: [j for _, j in own] for i, own in groupby(group, itemgetter(0))}
        readings = _readings(prompts, answers_of)
        outputs = yield from term_outputs(family, memory, readings)
        main = (reading.term.prompt_name == "" for reading in readings)
        cached.append(next(compress(outputs.num_cached, main), 0))
        positions = list(_positions(prompts, answers_of, outputs).items())
        for start in range(0, len(positions), _ROWS):
            batch = dict(positions[start : start + _ROWS])
            for (i, j, length), value in _log_p(family, target, prompts, outputs, batch).items():
                logprobs[i][j][length] = value
            yield
    return AnswerScores(logprobs, _num_shared(prompts) + cached[0])


def _groups(items: Iterable[T], tokens: Callable[[T], int]) -> Iterator[list[T]]:
    """Divide what is scored into groups with few enough answer tokens; a longer answer gets its own."""
    group: list[T] = []
    total = 0
    for item in items:
        if group and total + tokens(item) > _TOKENS_PER_GROUP:
            yield group
            group, total = [], 0
        group.append(item)
        total += tokens(item)
    if group:
        yield group


def _num_shared(prompts: Sequence[ScoredPrompt]) -> int:
    """Tokens at the beginnings of main prompts that need not run, for another prompt has them too."""
    main = sorted(prompt.prompts[""] for prompt in prompts if "" in prompt.prompts)
    equal_so_far = (accumulate(map(eq, one, next_one), and_) for one, next_one in pairwise(main))
    return sum(map(sum, equal_so_far))


def _readings(prompts: Sequence[ScoredPrompt], answers_of: Mapping[int, Sequence[int]]) -> list[Reading]:
    """What the terms of prompts read: of each prompt its text, and some of its answers, by their numbers."""
    return [
        Reading(term, prompts[i].prompts[term.prompt_name], tuple(prompts[i].answers[j] for j in answers))
        for i, answers in answers_of.items()
        for term in terms_in_order(prompts[i].formula)
    ]


def _positions(
    prompts: Sequence[ScoredPrompt], answers_of: Mapping[int, Sequence[int]], outputs: Outputs
) -> dict[_Position, list[_Token]]:
    """The distinct beginnings of some answers, each with the tokens that follow.

    Args:
        prompts: The prompts.
        answers_of: By number of the prompt, the numbers of its answers.
        outputs: Those of `_readings`.
    """
    found: dict[_Position, list[_Token]] = {}
    readings = iter(outputs.places)
    for i, answers in answers_of.items():
        of_terms = [next(readings) for _ in prompts[i].formula.terms]
        for j, *places in zip(answers, *of_terms, strict=True):
            for length, at in enumerate(zip(*places, strict=True)):
                found.setdefault(_Position(i, length, at), []).append(_Token(i, j, length))
    return found


@torch.inference_mode()
def _log_p(
    family: ModelFamily,
    target: Target,
    prompts: Sequence[ScoredPrompt],
    outputs: Outputs,
    positions: Mapping[_Position, Sequence[_Token]],
) -> dict[_Token, float]:
    """Log p of tokens at some positions.

    Raises:
        DecodingError: One of them is not finite.
    """
    logits, entry = _logits(family, outputs, [position.places for position in positions])
    numbers, lengths = ([getattr(p, name) for p in positions] for name in ("prompt", "length"))
    logp = target.logprobs(logits, entry, numbers, lengths)
    tokens = {token: row for row, own in enumerate(positions.values()) for token in own}
    ids = [prompts[token.prompt].answers[token.answer][token.length] for token in tokens]
    values = logp[[*tokens.values()], ids].tolist()
    if not all(map(isfinite, values)):
        raise DecodingError(
            "Some log p is not finite, though every model's outputs are: use smaller weights in `mixture`.",
            is_retryable=False,
        )
    return dict(zip(tokens, values, strict=True))


def _logits(
    family: ModelFamily, outputs: Outputs, places: Sequence[tuple[Place, ...]]
) -> tuple[Tensor, list[list[int]]]:
    """[N, V] logits of outputs, and which of them each term has at each position."""
    # Term by term, for rows that follow each other need not be copied to be summed.
    of_terms = dict.fromkeys(place for term in zip_longest(*places) for place in term if place)
    by_model = sorted(of_terms, key=itemgetter(0))
    index = {place: number for number, place in enumerate(by_model)}
    states = [
        (family.models[model].head, torch.stack([outputs.rows[place] for place in own]))
        for model, own in groupby(by_model, itemgetter(0))
    ]
    logits = project(states, len(family.vocabulary), family.vocabulary.device)
    return logits, [[index[place] for place in at] for at in places]
