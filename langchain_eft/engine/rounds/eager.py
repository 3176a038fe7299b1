"""One round on the device: draft, run every model over the scheduled rows, combine, draw."""

from __future__ import annotations

import time
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import torch
from torch import Tensor

from langchain_eft.engine.analysis.attribution import Delta, Parts, attribute, mean, normalize
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.decoding.acceptance import couple
from langchain_eft.engine.decoding.formula import Coefficients, combine, conservative
from langchain_eft.engine.decoding.penalties import reshape
from langchain_eft.engine.decoding.sampling import Draw, Sampling, SamplingRow, draw
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import project
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.recipe.schedules import weight_at
from langchain_eft.engine.request import TokenLogprobs
from langchain_eft.engine.scheduling.prompt_state import Context
from langchain_eft.engine.scheduling.request_state import Sequence
from langchain_eft.engine.scheduling.scheduler import ScheduledRow
from langchain_eft.engine.scheduling.speculator import Draft, Outcome

Sum = tuple[tuple[Term, float], ...]
"""A weighted sum of terms."""


@dataclass(frozen=True)
class Work:
    """Tokens that one term has to run for one sequence.

    Attributes:
        sequence: Whose tokens.
        term: Which variant of which model.
        tokens: Token ids.
        start: Index of the first of them in the term's context.
        keep: How many of the last of them need logits.
    """

    sequence: Sequence
    term: Term
    tokens: list[int]
    start: int
    keep: int

    @property
    def context(self) -> Context:
        """What the term reads."""
        return self.sequence.contexts[self.term.context]


@dataclass(frozen=True)
class Position:
    """A place at which the next token is drawn.

    Attributes:
        sequence: Whose text.
        guesses: Drafted tokens that lie between the known ones and it.
    """

    sequence: Sequence
    guesses: list[int]

    @property
    def number(self) -> int:
        """Number of the token within the answer: contexts differ in length, but not in this."""
        return self.sequence.written + len(self.guesses)

    @property
    def coefficients(self) -> Coefficients[Term]:
        """The formula that the token is drawn by."""
        return self.sequence.formula.at(self.number)


class Logits:
    """The logits that a round has computed: who needs those of a term at a position finds them here."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._index: dict[tuple[Sequence, Term, int], int] = {}

    def add(self, places: Rows[tuple[Sequence, Term, int]], logits: Tensor) -> None:
        """Take [n, V] logits of n places."""
        start = len(self._index)
        self._index.update({place: start + i for i, place in enumerate(places)})
        self._parts.append(logits)

    def combine(self, sums: Rows[Sum], positions: Rows[Position], normal: Tensor | None = None) -> Tensor:
        """[R, V] weighted sums, one at each position.

        Args:
            sums: Terms and their weights.
            positions: R positions.
            normal: [V] bool, tokens over which logits are made log-probabilities first; the sums of others
                mean nothing. None leaves logits as they are.
        """
        stacked = self._stacked()
        width = max(len(summands) for summands in sums)
        index = torch.zeros(len(sums), width, dtype=torch.int64)
        weights = torch.zeros(len(sums), width)
        for i, (summands, position) in enumerate(zip(sums, positions, strict=True)):
            for j, (term, weight) in enumerate(summands):
                index[i, j] = self._index[position.sequence, term, position.number]
                weights[i, j] = weight
        if normal is not None:
            rows, index = index.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            stacked = stacked[rows.to(stacked.device)]
            stacked = stacked - stacked.masked_fill(~normal, float("-inf")).logsumexp(-1, keepdim=True)
        return combine(stacked, index.to(stacked.device), weights.to(stacked.device))

    def of(self, terms: Rows[Term], positions: Rows[Position]) -> Tensor:
        """[R, V] logits of one term at each position."""
        rows = [self._index[p.sequence, term, p.number] for term, p in zip(terms, positions, strict=True)]
        return self._stacked()[rows]

    def _stacked(self) -> Tensor:
        self._parts = [torch.cat(self._parts)]
        return self._parts[0]


@dataclass
class Round:
    """What a round has done.

    Attributes:
        outcomes: What was drawn for each row that emits.
        draft_passes: Rows and seconds of each draft pass.
        verified: Tokens and seconds of the verifying pass, or None where they say nothing about the next one.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    draft_passes: list[tuple[int, float]] = field(default_factory=list)
    verified: tuple[int, float] | None = None


class Runner:
    """Runs rounds of any kind. All terms of one context see the same tokens at the same positions.

    Attributes:
        pools: KV memory of each model.
    """

    def __init__(self, family: ModelFamily, num_blocks: int, block_size: int) -> None:
        self._family = family
        self._block_size = block_size
        self._num_blocks = num_blocks
        self._device = family.vocabulary.device
        self.pools = [KVPool(model.variants * num_blocks * block_size) for model in family.models]

    @torch.inference_mode()
    def step(self, rows: Rows[ScheduledRow], drafts: dict[Sequence, Draft]) -> Round:
        """Draft where a draft is wanted, compute all rows' tokens, and draw where a row's end is reached.

        Args:
            rows: The round's rows.
            drafts: Drafts of decoding rows, filled here where the small models guess.
        """
        done, logits = Round(), Logits()
        self._draft(drafts, logits, done)
        started = time.perf_counter()
        emitting = [row.sequence for row in rows if row.emits]
        positions = [p for s in emitting for p in _positions(s, drafts[s].tokens if s in drafts else [])]
        self._run([piece for row in rows for piece in _verifying_work(row, drafts.get(row.sequence))], logits)
        for row in rows:
            for name, count in row.counts.items():
                row.sequence.contexts[name].computed += count
        if positions:
            logp = self._target(logits, positions)
            drawn, foreseen = self._draw(logits, logp, positions, drafts)
            done.outcomes = _outcomes(emitting, drafts, drawn, foreseen, _logprobs(logp, positions, drawn))
            self._trace(done.outcomes, logits, logp, positions)
        done.verified = len(positions), time.perf_counter() - started
        return done

    def _draft(self, drafts: dict[Sequence, Draft], logits: Logits, done: Round) -> None:
        """Let the small models guess, one pass for the next token of all rows that want one."""
        active = [(s, d) for s, d in drafts.items() if d.source == "model" and d.count]
        while active:
            started = time.perf_counter()
            positions = [Position(s, d.tokens) for s, d in active]
            self._run([piece for position in positions for piece in _drafting_work(position)], logits)
            q = self._sample(_drafted(logits, positions), positions)
            for i, (token, (_, d)) in enumerate(zip(q.tokens.tolist(), active, strict=True)):
                d.tokens.append(token)
                d.probs.append(None if q.probs is None else q.probs[i])
            done.draft_passes.append((len(active), time.perf_counter() - started))
            active = [(s, d) for s, d in active if len(d.tokens) < d.count and not s.ends(d.tokens[-1])]

    def _draw(
        self, logits: Logits, logp: Tensor, positions: Rows[Position], drafts: dict[Sequence, Draft]
    ) -> tuple[list[int], list[int | None]]:
        """Tokens drawn from p at every position, and those drawn from q where there is one."""
        target = self._sample(logp, positions)
        foretold: dict[int, tuple[int, Tensor | None]] = {}
        unknown = []
        for i, position in enumerate(positions):
            s = position.sequence
            draft, step = drafts.get(s), len(position.guesses)
            if draft is not None and step < len(draft.probs):
                foretold[i] = draft.tokens[step], draft.probs[step]
            elif s.formula.drafter is not None and (target.probs is not None or _measured(s)):
                unknown.append(i)
        if unknown:
            places = [positions[i] for i in unknown]
            q = self._sample(_drafted(logits, places), places)
            for j, (i, token) in enumerate(zip(unknown, q.tokens.tolist(), strict=True)):
                foretold[i] = token, None if q.probs is None else q.probs[j]
        tokens = target.tokens
        if target.probs is not None and foretold:
            tokens = self._couple(target.tokens, target.probs, foretold, positions)
        return tokens.tolist(), [foretold[i][0] if i in foretold else None for i in range(len(positions))]

    def _sample(self, logits: Tensor, positions: Rows[Position]) -> Draw:
        """Tokens drawn at every position from [R, V] logits, of those that may come there."""
        rows = _sampling(positions)
        reshaped = reshape(self._allowed(logits, positions).float(), rows)
        return draw(reshaped, Sampling.of(rows, reshaped.device))

    def _couple(
        self,
        tokens: Tensor,
        p: Tensor,
        foretold: dict[int, tuple[int, Tensor | None]],
        positions: Rows[Position],
    ) -> Tensor:
        """Samples of p that follow those of q wherever they may."""
        q, drawn = p.clone(), tokens.clone()
        for i, (token, probs) in foretold.items():
            drawn[i] = token
            q[i] = p.new_zeros(p.shape[1]).index_fill_(0, drawn[i], 1) if probs is None else probs
        sampling = Sampling.of(_sampling(positions), p.device)
        return couple(p, q, drawn, sampling.seeds, sampling.positions)

    def _run(self, work: Rows[Work], logits: Logits) -> None:
        """Run every piece of work, one forward per model, and keep the logits that are wanted."""
        hidden: list[tuple[Tensor | None, Tensor]] = []
        places: list[tuple[Sequence, Term, int]] = []
        for index, model in enumerate(self._family.models):
            pieces = [piece for piece in work if piece.term.model == index]
            if not pieces:
                continue
            keep: list[int] = []
            end = 0
            for piece in pieces:
                end += len(piece.tokens)
                keep.extend(range(end - piece.keep, end))
                following = piece.context.number(piece.start + len(piece.tokens))
                numbers = range(following - piece.keep, following)
                places.extend((piece.sequence, piece.term, number) for number in numbers)
            batch = pack(list(map(self._chunk, pieces)), self.pools[index], self._block_size, model.device)
            active = sorted({piece.term.variant for piece in pieces})
            kept = torch.tensor(keep, device=model.device, dtype=torch.int64)
            hidden.append((model.head, model(batch, active, kept)))
        logits.add(places, project(hidden, len(self._family.vocabulary), self._device))

    def _chunk(self, piece: Work) -> Chunk:
        shift = piece.term.variant * self._num_blocks
        blocks = [block + shift for block in piece.context.block_table]
        return Chunk(piece.tokens, piece.start, piece.term.variant, blocks)

    def _target(self, logits: Logits, positions: Rows[Position]) -> Tensor:
        """Log p at every position up to a constant, [R, V]."""
        never, vocabulary = float("-inf"), self._family.vocabulary
        target = logits.combine([position.coefficients.target for position in positions], positions)
        careful = [i for i, position in enumerate(positions) if position.coefficients.small is not None]
        if careful:
            places = [positions[i] for i in careful]
            formulas = [place.sequence.formula for place in places]
            top_p = target.new_tensor([formula.top_p for formula in formulas])
            unscaled = None
            if self._family.unscaled is not None:
                rows = torch.tensor([formula.unscaled for formula in formulas], device=target.device)
                unscaled = rows[:, None] & self._family.unscaled
            target[careful] = conservative(
                logits.combine([place.coefficients.small or () for place in places], places).masked_fill(
                    ~vocabulary, never
                ),
                logits.combine([place.coefficients.upscale or () for place in places], places, vocabulary),
                top_p if any(formula.top_p < 1 for formula in formulas) else None,
                unscaled,
            )
        return target.masked_fill(~vocabulary, never)

    def _trace(
        self, outcomes: Rows[Outcome], logits: Logits, logp: Tensor, positions: Rows[Position]
    ) -> None:
        """Trace the accepted tokens of the rows that ask for it, from the logits that drew them."""
        start = 0
        for outcome in outcomes:
            if outcome.sequence.generation.request.trace:
                places = zip(outcome.tokens, positions[start:], logp[start:], strict=False)
                outcome.traces.extend(
                    attribute(token, self._parts(logits, p, place)) for token, place, p in places
                )
            start += len(outcome.draft.tokens) + 1

    def _parts(self, logits: Logits, p: Tensor, position: Position) -> Parts:
        """What adds up to a row of log p, [V]."""
        formula, vocabulary = position.sequence.formula, self._family.vocabulary

        def of(term: Term) -> Tensor:
            return normalize(logits.of([term], [position])[0], vocabulary)

        names = position.sequence.generation.request.mixture.active()
        return Parts(
            p=normalize(p, vocabulary),
            base=of(formula.base),
            deltas={
                name: Delta(weight_at(weight, position.number), of(tuned), of(reference))
                for name, (tuned, reference, weight) in zip(names, formula.behaviors, strict=True)
            },
            reference=mean(list(map(of, formula.origins))) if formula.origins else None,
            strength=formula.strength,
            top_p=formula.top_p,
            vocabulary=vocabulary,
            unscaled=self._family.unscaled if formula.unscaled else None,
        )

    def _allowed(self, logits: Tensor, positions: Rows[Position]) -> Tensor:
        """Leave only tokens that all models know and that the rows' grammars allow."""
        allowed = self._family.vocabulary.expand(len(positions), -1)
        bound = [i for i, position in enumerate(positions) if position.sequence.grammar]
        if bound:
            allowed = allowed.clone()
            for i in bound:
                allowed[i] &= _mask(positions[i]).to(allowed.device)
        return logits.masked_fill(~allowed, float("-inf"))


def _drafting_work(position: Position) -> list[Work]:
    """The last token before a position, for every term that drafts."""
    sequence = position.sequence
    token = position.guesses[-1] if position.guesses else sequence.tokens[-1]
    return [
        Work(sequence, term, [token], sequence.contexts[term.context].before(position.number), 1)
        for term in sequence.formula.draft_terms
    ]


def _drafted(logits: Logits, positions: Rows[Position]) -> Tensor:
    """Log q at every position up to a constant, [R, V]; each sequence has a drafter."""
    return logits.combine([position.coefficients.draft or () for position in positions], positions)


def _verifying_work(row: ScheduledRow, draft: Draft | None) -> list[Work]:
    """What every term has still to run: the pending tokens and the guesses, less what drafting has run."""
    sequence = row.sequence
    guesses = draft.tokens if draft else []
    drafted = sequence.formula.draft_terms if draft is not None and draft.source == "model" else ()
    work = []
    for term in sequence.formula.terms:
        context, count = sequence.contexts[term.context], row.counts[term.context]
        if not count:
            continue
        text = [*context.tokens[context.computed : context.computed + count], *guesses]
        skip = len(guesses) if term in drafted else 0
        keep = len(guesses) + 1 - skip if row.emits else 0
        work.append(Work(sequence, term, text[skip:], context.computed + skip, keep))
    return work


def _positions(sequence: Sequence, guesses: list[int]) -> list[Position]:
    """The places after the last known token and after each guess."""
    return [Position(sequence, guesses[:i]) for i in range(len(guesses) + 1)]


def _mask(position: Position) -> Tensor:
    assert position.sequence.grammar is not None  # noqa: S101  (asked for before)
    return position.sequence.grammar.mask(position.guesses)


def _logprobs(logp: Tensor, positions: Rows[Position], drawn: Rows[int]) -> list[TokenLogprobs | None]:
    """What the requests want to know of log p at every position."""
    wanted = [i for i, p in enumerate(positions) if p.sequence.generation.request.top_logprobs is not None]
    found: list[TokenLogprobs | None] = [None] * len(positions)
    for i in wanted:
        normalized = logp[i].log_softmax(-1)
        top = normalized.topk(positions[i].sequence.generation.request.top_logprobs or 0)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        found[i] = TokenLogprobs(float(normalized[drawn[i]]), tuple(pairs))
    return found


def _sampling(positions: Rows[Position]) -> list[SamplingRow]:
    return [position.sequence.sampling(position.guesses) for position in positions]


def _measured(sequence: Sequence) -> bool:
    return sequence.generation.request.speculation == "auto"


def _outcomes(
    emitting: Rows[Sequence],
    drafts: dict[Sequence, Draft],
    drawn: list[int],
    foreseen: list[int | None],
    logprobs: list[TokenLogprobs | None],
) -> list[Outcome]:
    """Accept each row's guesses as far as they are the tokens that were drawn."""
    outcomes, start = [], 0
    for sequence in emitting:
        draft = drafts.get(sequence) or Draft("model", 0, [])
        tokens = drawn[start : start + len(draft.tokens) + 1]
        right = 0
        while right < len(draft.tokens) and draft.tokens[right] == tokens[right]:
            right += 1
        for context in sequence.contexts.values():
            context.computed += right
        accepted = slice(start, start + right + 1)
        known = [entry for entry in logprobs[accepted] if entry is not None]
        outcomes.append(Outcome(sequence, drawn[accepted], draft, foreseen[accepted], known))
        start += len(draft.tokens) + 1
    return outcomes
