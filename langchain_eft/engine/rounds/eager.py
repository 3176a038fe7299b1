"""One round on the device: draft, run every model over the scheduled rows, combine, draw."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from langchain_eft.engine.analysis.attribution import Parts, WeightedDelta, attribute, mean, normalize
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.decoding.acceptance import accept_or_resample, num_accepted
from langchain_eft.engine.decoding.formula import Coefficients, combine, conservative
from langchain_eft.engine.decoding.penalties import apply_penalties
from langchain_eft.engine.decoding.sampling import Draw, Sampling, SamplingRow, draw
from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import project
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.recipe.schedules import weight_at
from langchain_eft.engine.rounds.result import RoundResult
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.prompt_state import PromptState
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow
from langchain_eft.engine.token_trace import TokenTrace

Sum = tuple[tuple[Term, float], ...]
"""A weighted sum of terms."""


@dataclass(frozen=True)
class Work:
    """Tokens that one term has to run for one state.

    Attributes:
        state: Whose tokens.
        term: Which variant of which model.
        tokens: Token ids.
        start: Index of the first of them in the term's prompt.
        keep: How many of the last of them need logits.
    """

    state: RequestState
    term: Term
    tokens: list[int]
    start: int
    keep: int

    @property
    def prompt(self) -> PromptState:
        """What the term reads."""
        return self.state.prompts[self.term.prompt_name]


@dataclass(frozen=True)
class Position:
    """A place at which the next token is drawn.

    Attributes:
        state: Whose text.
        draft_tokens: Draft tokens between the last known token and it.
    """

    state: RequestState
    draft_tokens: list[int]

    @property
    def number(self) -> int:
        """Number of the token within the answer: contexts differ in length, but not in this."""
        return self.state.num_output_tokens + len(self.draft_tokens)

    @property
    def coefficients(self) -> Coefficients[Term]:
        """The formula that the token is drawn by."""
        return self.state.formula.at(self.number)


@dataclass(frozen=True)
class DrawnToken:
    """A token drawn from p.

    Attributes:
        position: Where.
        token: Its id.
        sample: The sample of q there, or None where none was drawn.
        logprobs: Log-probabilities, if the request asks for them.
        trace: Its trace, if the request asks for one.
    """

    position: Position
    token: int
    sample: int | None
    logprobs: TokenLogprobs | None
    trace: TokenTrace | None


class Logits:
    """The logits that a round has computed: who needs those of a term at a position finds them here."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._index: dict[tuple[RequestState, Term, int], int] = {}

    def add(self, places: Sequence[tuple[RequestState, Term, int]], logits: Tensor) -> None:
        """Take [n, V] logits of n places."""
        start = len(self._index)
        self._index.update({place: start + i for i, place in enumerate(places)})
        self._parts.append(logits)

    def combine(
        self, sums: Sequence[Sum], positions: Sequence[Position], normal: Tensor | None = None
    ) -> Tensor:
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
                index[i, j] = self._index[position.state, term, position.number]
                weights[i, j] = weight
        if normal is not None:
            rows, index = index.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            stacked = stacked[rows.to(stacked.device)]
            stacked = stacked - stacked.masked_fill(~normal, float("-inf")).logsumexp(-1, keepdim=True)
        return combine(stacked, index.to(stacked.device), weights.to(stacked.device))

    def of(self, terms: Sequence[Term], positions: Sequence[Position]) -> Tensor:
        """[R, V] logits of one term at each position."""
        rows = [self._index[p.state, term, p.number] for term, p in zip(terms, positions, strict=True)]
        return self._stacked()[rows]

    def _stacked(self) -> Tensor:
        self._parts = [torch.cat(self._parts)]
        return self._parts[0]


@dataclass
class Drafted:
    """What one row has drafted in a round.

    Attributes:
        tokens: The draft tokens.
        probs: For tokens that the small models drafted, the [V] float64 row of q; None if greedy.
    """

    tokens: list[int] = field(default_factory=list)
    probs: list[Tensor | None] = field(default_factory=list)


class EagerRunner:
    """Runs rounds of any kind. All terms of one prompt see the same tokens at the same positions.

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
    def run(self, rows: Sequence[ScheduledRow], drafts: Mapping[RequestState, Draft]) -> RoundResult:
        """Draft, compute the tokens of all rows, and draw for the rows that reach their last token.

        Args:
            rows: The round's rows.
            drafts: How the decoding rows draft.
        """
        prefilled = sum(row.num_tokens for row in rows if not row.decodes)
        result, logits = RoundResult(prefilled_tokens=prefilled), Logits()
        drafted = self._draft(drafts, logits, result)
        started = time.perf_counter()
        emitting = [row.state for row in rows if row.emits]
        positions = [p for state in emitting for p in _positions(state, drafted[state].tokens)]
        self._run(
            [piece for row in rows for piece in _verify_work(row, drafts.get(row.state), drafted[row.state])],
            logits,
        )
        for row in rows:
            for name, count in row.counts.items():
                row.state.prompts[name].num_computed_tokens += count
        if positions:
            logp = self._target(logits, positions)
            tokens, samples = self._draw(logits, logp, positions, drafted)
            drawn = [
                DrawnToken(position, token, sample, logprobs, trace)
                for position, token, sample, logprobs, trace in zip(
                    positions,
                    tokens,
                    samples,
                    _logprobs(logp, positions, tokens),
                    self._traces(logits, logp, positions, tokens),
                    strict=True,
                )
            ]
            result.outcomes = _outcomes(drawn, drafts, drafted)
        result.verify_pass = len(positions), time.perf_counter() - started
        return result

    def _draft(
        self, drafts: Mapping[RequestState, Draft], logits: Logits, result: RoundResult
    ) -> dict[RequestState, Drafted]:
        """Let the small models draft, one pass for the next token of all rows that draft one."""
        drafted: dict[RequestState, Drafted] = defaultdict(Drafted)
        for state, draft in drafts.items():
            drafted[state].tokens.extend(draft.given_tokens)
        active = [state for state, draft in drafts.items() if draft.runs_model]
        while active:
            started = time.perf_counter()
            positions = [Position(state, drafted[state].tokens) for state in active]
            self._run([piece for position in positions for piece in _draft_work(position)], logits)
            q = self._sample(_draft_logits(logits, positions), positions)
            for i, (token, state) in enumerate(zip(q.tokens.tolist(), active, strict=True)):
                drafted[state].tokens.append(token)
                drafted[state].probs.append(None if q.probs is None else q.probs[i])
            result.draft_passes.append((len(active), time.perf_counter() - started))
            active = [
                state
                for state in active
                if len(drafted[state].tokens) < drafts[state].count
                and not state.ends_with(drafted[state].tokens[-1])
            ]
        return drafted

    def _draw(
        self,
        logits: Logits,
        logp: Tensor,
        positions: Sequence[Position],
        drafted: Mapping[RequestState, Drafted],
    ) -> tuple[list[int], list[int | None]]:
        """Tokens drawn from p at every position, and the samples of q where there are any."""
        target = self._sample(logp, positions)
        samples: dict[int, tuple[int, Tensor | None]] = {}
        undrafted = []
        for i, position in enumerate(positions):
            state, step = position.state, len(position.draft_tokens)
            if step < len(drafted[state].probs):
                samples[i] = drafted[state].tokens[step], drafted[state].probs[step]
            elif state.formula.drafter is not None and (target.probs is not None or _measures(state)):
                undrafted.append(i)
        if undrafted:
            places = [positions[i] for i in undrafted]
            q = self._sample(_draft_logits(logits, places), places)
            for j, (i, token) in enumerate(zip(undrafted, q.tokens.tolist(), strict=True)):
                samples[i] = token, None if q.probs is None else q.probs[j]
        tokens = target.tokens
        if target.probs is not None and samples:
            tokens = self._accept_or_resample(target.tokens, target.probs, samples, positions)
        return tokens.tolist(), [samples[i][0] if i in samples else None for i in range(len(positions))]

    def _sample(self, logits: Tensor, positions: Sequence[Position]) -> Draw:
        """Tokens drawn at every position from [R, V] logits, of those that may come there."""
        rows = _sampling(positions)
        penalized = apply_penalties(self._allowed(logits, positions).float(), rows)
        return draw(penalized, Sampling.of(rows, penalized.device))

    def _accept_or_resample(
        self,
        tokens: Tensor,
        p: Tensor,
        samples: dict[int, tuple[int, Tensor | None]],
        positions: Sequence[Position],
    ) -> Tensor:
        """Samples of p that follow those of q wherever they may."""
        q, drawn = p.clone(), tokens.clone()
        for i, (token, probs) in samples.items():
            drawn[i] = token
            q[i] = p.new_zeros(p.shape[1]).index_fill_(0, drawn[i], 1) if probs is None else probs
        sampling = Sampling.of(_sampling(positions), p.device)
        return accept_or_resample(p, q, drawn, sampling.seeds, sampling.positions)

    def _run(self, work: Sequence[Work], logits: Logits) -> None:
        """Run every piece of work, one forward per model, and keep the logits that are wanted."""
        hidden: list[tuple[Tensor | None, Tensor]] = []
        places: list[tuple[RequestState, Term, int]] = []
        for index, model in enumerate(self._family.models):
            pieces = [piece for piece in work if piece.term.model == index]
            if not pieces:
                continue
            keep: list[int] = []
            end = 0
            for piece in pieces:
                end += len(piece.tokens)
                keep.extend(range(end - piece.keep, end))
                following = piece.prompt.position_after(piece.start + len(piece.tokens))
                numbers = range(following - piece.keep, following)
                places.extend((piece.state, piece.term, number) for number in numbers)
            batch = pack(list(map(self._chunk, pieces)), self.pools[index], self._block_size, model.device)
            active = sorted({piece.term.variant for piece in pieces})
            kept = torch.tensor(keep, device=model.device, dtype=torch.int64)
            hidden.append((model.head, model(batch, active, kept)))
        logits.add(places, project(hidden, len(self._family.vocabulary), self._device))

    def _chunk(self, piece: Work) -> Chunk:
        shift = piece.term.variant * self._num_blocks
        blocks = [block + shift for block in piece.prompt.block_table]
        return Chunk(piece.tokens, piece.start, piece.term.variant, blocks)

    def _target(self, logits: Logits, positions: Sequence[Position]) -> Tensor:
        """Log p at every position up to a constant, [R, V]."""
        never, vocabulary = float("-inf"), self._family.vocabulary
        target = logits.combine([position.coefficients.target for position in positions], positions)
        careful = [i for i, position in enumerate(positions) if position.coefficients.small is not None]
        if careful:
            places = [positions[i] for i in careful]
            formulas = [place.state.formula for place in places]
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

    def _traces(
        self, logits: Logits, logp: Tensor, positions: Sequence[Position], tokens: Sequence[int]
    ) -> list[TokenTrace | None]:
        """Traces of the rows that ask for them, from the logits that drew the tokens."""
        return [
            attribute(token, self._parts(logits, p, position)) if position.state.request.trace else None
            for position, p, token in zip(positions, logp, tokens, strict=True)
        ]

    def _parts(self, logits: Logits, p: Tensor, position: Position) -> Parts:
        """What adds up to a row of log p, [V]."""
        formula, vocabulary = position.state.formula, self._family.vocabulary

        def of(term: Term) -> Tensor:
            return normalize(logits.of([term], [position])[0], vocabulary)

        names = position.state.request.mixture.active()
        return Parts(
            p=normalize(p, vocabulary),
            base=of(formula.base),
            deltas={
                name: WeightedDelta(weight_at(weight, position.number), of(tuned), of(reference))
                for name, (tuned, reference, weight) in zip(names, formula.behaviors, strict=True)
            },
            reference=mean(list(map(of, formula.origins))) if formula.origins else None,
            strength=formula.strength,
            top_p=formula.top_p,
            vocabulary=vocabulary,
            unscaled=self._family.unscaled if formula.unscaled else None,
        )

    def _allowed(self, logits: Tensor, positions: Sequence[Position]) -> Tensor:
        """Leave only tokens that all models know and that the rows' grammars allow."""
        allowed = self._family.vocabulary.expand(len(positions), -1)
        bound = [i for i, position in enumerate(positions) if position.state.grammar]
        if bound:
            allowed = allowed.clone()
            for i in bound:
                allowed[i] &= _mask(positions[i]).to(allowed.device)
        return logits.masked_fill(~allowed, float("-inf"))


def _draft_work(position: Position) -> list[Work]:
    """The last token before a position, for every term that drafts."""
    state = position.state
    token = position.draft_tokens[-1] if position.draft_tokens else state.tokens[-1]
    return [
        Work(state, term, [token], state.prompts[term.prompt_name].index_before(position.number), 1)
        for term in state.formula.draft_terms
    ]


def _draft_logits(logits: Logits, positions: Sequence[Position]) -> Tensor:
    """Log q at every position up to a constant, [R, V]; each state has a drafter."""
    return logits.combine([position.coefficients.draft or () for position in positions], positions)


def _verify_work(row: ScheduledRow, draft: Draft | None, drafted: Drafted) -> list[Work]:
    """What every term has still to run: uncomputed tokens and draft tokens, less what drafting has run."""
    state, draft_tokens = row.state, drafted.tokens
    ran = state.formula.draft_terms if draft is not None and draft.source == "model" else ()
    work = []
    for term in state.formula.terms:
        prompt, count = state.prompts[term.prompt_name], row.counts[term.prompt_name]
        if not count:
            continue
        text = [
            *prompt.tokens[prompt.num_computed_tokens : prompt.num_computed_tokens + count],
            *draft_tokens,
        ]
        skip = len(draft_tokens) if term in ran else 0
        keep = len(draft_tokens) + 1 - skip if row.emits else 0
        work.append(Work(state, term, text[skip:], prompt.num_computed_tokens + skip, keep))
    return work


def _positions(state: RequestState, draft_tokens: list[int]) -> list[Position]:
    """The places after the last known token and after each guess."""
    return [Position(state, draft_tokens[:i]) for i in range(len(draft_tokens) + 1)]


def _mask(position: Position) -> Tensor:
    assert position.state.grammar is not None  # noqa: S101  (asked for before)
    return position.state.grammar.mask(position.draft_tokens)


def _logprobs(
    logp: Tensor, positions: Sequence[Position], drawn: Sequence[int]
) -> list[TokenLogprobs | None]:
    """What the requests want to know of log p at every position."""
    wanted = [i for i, p in enumerate(positions) if p.state.request.top_logprobs is not None]
    found: list[TokenLogprobs | None] = [None] * len(positions)
    for i in wanted:
        normalized = logp[i].log_softmax(-1)
        top = normalized.topk(positions[i].state.request.top_logprobs or 0)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        found[i] = TokenLogprobs(float(normalized[drawn[i]]), tuple(pairs))
    return found


def _sampling(positions: Sequence[Position]) -> list[SamplingRow]:
    return [position.state.sampling(position.draft_tokens) for position in positions]


def _measures(state: RequestState) -> bool:
    return state.request.speculation == "auto"


def _outcomes(
    drawn: Sequence[DrawnToken],
    drafts: Mapping[RequestState, Draft],
    drafted: Mapping[RequestState, Drafted],
) -> dict[RequestState, RowOutcome]:
    """Accept each row's draft tokens as far as they equal the tokens that were drawn."""
    rows: dict[RequestState, list[DrawnToken]] = defaultdict(list)
    for token in drawn:
        rows[token.position.state].append(token)
    outcomes = {}
    for state, row in rows.items():
        draft_tokens = drafted[state].tokens
        accepted = num_accepted(draft_tokens, [token.token for token in row])
        for prompt in state.prompts.values():
            prompt.num_computed_tokens += accepted
        row = row[: accepted + 1]
        outcomes[state] = RowOutcome(
            tokens=[token.token for token in row],
            draft=drafts.get(state, Draft()),
            draft_tokens=draft_tokens,
            draft_samples=[token.sample for token in row],
            logprobs=[token.logprobs for token in row if token.logprobs is not None],
            traces=[token.trace for token in row if token.trace is not None],
        )
    return outcomes
