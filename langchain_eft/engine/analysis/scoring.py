"""Log-probabilities of given answers: those of one term, of the formula, and implicit rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from math import isfinite
from operator import and_, eq, itemgetter
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from langchain_eft.engine.analysis.prefix_tree import PrefixTree
from langchain_eft.engine.analysis.term_outputs import Answers, Memory, Reading, Steps, term_outputs
from langchain_eft.engine.decoding.formula import Coefficients, Formula, combine, conservative
from langchain_eft.engine.decoding.gates import add_gated, gates_opened
from langchain_eft.engine.errors import DecodingError
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.linear import product
from langchain_eft.engine.request import AnswerScores

_ROWS = 64
"""Tokens whose logits are computed at once; it bounds the memory of logits."""

_TOKENS_PER_GROUP = 2048
"""Most tokens of answers whose outputs are kept at once, while one model runs after the other."""

T = TypeVar("T")


@torch.inference_mode()
def logits_of(model: CausalModel, outputs: Tensor) -> Tensor:
    """[n, V'] float32 logits of a model from n of its outputs."""
    return (outputs if model.head is None else product(outputs, model.head)).float()


def token_logprobs(
    family: ModelFamily, memory: Memory, readings: Sequence[Reading]
) -> Steps[list[list[Tensor]]]:
    """Log-probability of every token of some answers under single terms of the formula.

    Returns:
        For each reading and answer, [len(answer)] float32, on the CPU.
    """
    outputs = yield from term_outputs(family, memory, readings)
    logprobs: list[list[Tensor]] = []
    for reading, answers in zip(readings, outputs.rows, strict=True):
        model, rows = family.models[reading.term.model], list(chain.from_iterable(answers))
        tokens, parts = list(chain.from_iterable(reading.answers)), []
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            parts.append(_of_tokens(model, torch.stack(rows[part]), tokens[part], family.vocabulary))
            yield
        logprobs.append(list(torch.split(torch.cat(parts), [len(answer) for answer in reading.answers])))
    return logprobs


@torch.inference_mode()
def _of_tokens(model: CausalModel, outputs: Tensor, tokens: Sequence[int], vocabulary: Tensor) -> Tensor:
    """[T] log-probabilities of T tokens from the [T, ...] outputs that predict them, on the CPU."""
    logits, targets = logits_of(model, outputs), torch.tensor(tokens)[:, None]
    # Tokens that some model lacks have probability 0, as in decoding.
    allowed = logits[:, : len(vocabulary)].masked_fill(~vocabulary.to(logits.device), -torch.inf)
    return allowed.log_softmax(-1).gather(1, targets.to(logits.device))[:, 0].cpu()


def rewards(
    family: ModelFamily,
    memory: Memory,
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
    scores: list[float] = []
    for group in _groups(answers, len):
        readings = [Reading(term, prompt, tuple(group)) for term, prompt in (tuned, reference)]
        of_tuned, of_reference = yield from token_logprobs(family, memory, readings)
        scores += [float((f - s).sum()) for f, s in zip(of_tuned, of_reference, strict=True)]
    return scores


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


@dataclass(frozen=True)
class ScoredPrompt:
    """Answers to one prompt, whose log p is asked for."""

    formula: Formula[Term]  # p
    prompts: Mapping[str, tuple[int, ...]]  # token ids that terms read, by the terms' names for them
    answers: Answers  # token ids of each answer, at least one each


class _Target(NamedTuple):
    """A token whose log p is wanted."""

    prompt: int
    answer: int
    position: int


@dataclass(frozen=True)
class _Position:
    """A beginning of answers to one prompt, behind which p is wanted."""

    formula: Formula[Term]  # p
    coefficients: Coefficients[Term]
    outputs: dict[Term, Tensor]  # what each term says there
    targets: dict[_Target, int]  # the tokens that follow, with where they are wanted


def answer_logprobs(
    family: ModelFamily, memory: Memory, prompts: Sequence[ScoredPrompt]
) -> Steps[AnswerScores]:
    """Log p of every token of given answers, before penalties, temperature and filters.

    Raises:
        DecodingError: A model's outputs are NaN, or log p is not finite.
    """
    logprobs = [[[0.0] * len(answer) for answer in prompt.answers] for prompt in prompts]
    pairs = ((i, j) for i, prompt in enumerate(prompts) for j in range(len(prompt.answers)))
    num_cached: int | None = None
    for group in _groups(pairs, lambda pair: len(prompts[pair[0]].answers[pair[1]])):
        cached = yield from _score(family, memory, prompts, group, logprobs)
        num_cached = cached if num_cached is None else num_cached
    return AnswerScores(logprobs, _num_shared(prompts) + (num_cached or 0))


def _num_shared(prompts: Sequence[ScoredPrompt]) -> int:
    """Tokens at the beginnings of main prompts that need not run, for another prompt has them too."""
    main = sorted(prompt.prompts[""] for prompt in prompts if "" in prompt.prompts)
    equal_so_far = (accumulate(map(eq, one, next_one), and_) for one, next_one in pairwise(main))
    return sum(map(sum, equal_so_far))


def _score(
    family: ModelFamily,
    memory: Memory,
    prompts: Sequence[ScoredPrompt],
    group: Sequence[tuple[int, int]],
    logprobs: list[list[list[float]]],
) -> Steps[int]:
    """Score some answers, given as numbers of prompts and answers, and write the results to `logprobs`.

    Returns:
        Tokens of the first main prompt that memory held already.
    """
    answers_of = {i: [j for _, j in pairs] for i, pairs in groupby(group, itemgetter(0))}
    readings = [
        Reading(term, prompts[i].prompts[term.prompt_name], tuple(prompts[i].answers[j] for j in answers))
        for i, answers in answers_of.items()
        for term in prompts[i].formula.terms
    ]
    outputs = yield from term_outputs(family, memory, readings)
    rows = iter(outputs.rows)
    positions: list[_Position] = []
    for i, answers in answers_of.items():
        of_terms = {term: next(rows) for term in prompts[i].formula.terms}
        positions.extend(_positions(i, prompts[i], answers, of_terms))
    for batch in _alike(positions):
        for position, row in zip(batch, _log_p(family, batch), strict=True):
            values = row[list(position.targets.values())].tolist()
            if not all(map(isfinite, values)):
                raise DecodingError(
                    "Some log p is not finite, though every model's outputs are: use smaller weights in "
                    "`mixture`.",
                    is_retryable=False,
                )
            for target, value in zip(position.targets, values, strict=True):
                logprobs[target.prompt][target.answer][target.position] = value
        yield
    main = (
        cached
        for reading, cached in zip(readings, outputs.num_cached, strict=True)
        if reading.term.prompt_name == ""
    )
    return next(main, 0)


def _positions(
    number: int,
    prompt: ScoredPrompt,
    answers: Sequence[int],
    outputs: Mapping[Term, Sequence[Sequence[Tensor]]],
) -> Iterable[_Position]:
    """The distinct beginnings of some answers to a prompt."""
    found: dict[int, _Position] = {}
    tree = PrefixTree()
    for which, answer in enumerate(answers):
        tokens = prompt.answers[answer]
        before = [-1, *tree.add(tokens)]
        for length, token in enumerate(tokens):
            position = found.get(before[length])
            if position is None:
                at = {term: rows[which][length] for term, rows in outputs.items()}
                position = _Position(prompt.formula, prompt.formula.at(length), at, {})
                found[before[length]] = position
            position.targets[_Target(number, answer, length)] = token
    return found.values()


def _alike(positions: Sequence[_Position]) -> Iterator[list[_Position]]:
    """Divide positions into batches whose p has the same form."""
    forms: dict[tuple[object, ...], list[_Position]] = {}
    for each in positions:
        form = each.coefficients, each.formula.gates, each.formula.upscale_top_p, each.formula.unscaled
        forms.setdefault(form, []).append(each)
    for group in forms.values():
        yield from (group[start : start + _ROWS] for start in range(0, len(group), _ROWS))


@torch.inference_mode()
def _log_p(family: ModelFamily, positions: Sequence[_Position]) -> Tensor:
    """[n, V] log p at n positions of one form."""
    device, size = family.vocabulary.device, len(family.vocabulary)
    logits: dict[Term, Tensor] = {}
    for term in positions[0].outputs:
        outputs = torch.stack([position.outputs[term] for position in positions])
        logits[term] = logits_of(family.models[term.model], outputs)[:, :size].to(device)

    formula, coefficients = positions[0].formula, positions[0].coefficients
    gates = [each.gate for each in formula.gates]
    opened = gates_opened(gates, logits[formula.base], family.vocabulary) if gates else None

    def total(summands: Sequence[tuple[Term, float]], *, gated: bool) -> Tensor:
        """[n, V] a weighted sum of terms, with what open gates add to it."""
        rows, added = len(positions), [gate.added for gate in formula.gates if gated]
        terms = list(dict.fromkeys(term for part in (summands, *added) for term, _ in part))
        weights = _row(summands, terms, device).expand(rows, -1)
        if added and opened is not None:
            changes = torch.cat([_row(part, terms, device) for part in added])
            weights = add_gated(weights, opened, changes.expand(rows, -1, -1))
        index = torch.arange(len(terms) * rows, device=device).view(len(terms), rows).t()
        return combine(torch.cat([logits[term] for term in terms]), index, weights, family.vocabulary)

    if coefficients.small is None or coefficients.upscale is None:
        return total(coefficients.target, gated=True).log_softmax(-1)
    small = total(coefficients.small, gated=True)
    for term, values in logits.items():
        inside = values.masked_fill(~family.vocabulary, -torch.inf)
        logits[term] = values - inside.logsumexp(-1, keepdim=True)
    top_p = small.new_tensor([formula.upscale_top_p] * len(small)) if formula.upscale_top_p < 1 else None
    unscaled = family.unscaled[None] if formula.unscaled and family.unscaled is not None else None
    upscale = total(coefficients.upscale, gated=False)
    return conservative(small, upscale, top_p, unscaled).log_softmax(-1)


def _row(summands: Sequence[tuple[Term, float]], terms: Sequence[Term], device: torch.device) -> Tensor:
    """[1, T] the coefficients of T terms in a sum."""
    weights = dict(summands)
    return torch.tensor([[weights.get(term, 0.0) for term in terms]], device=device)
