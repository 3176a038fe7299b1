"""Decoding rounds on the host's side: which shape, what the device is told, what its answer means.

Takes rounds in which all rows decode, whatever their mixtures, contexts, filters, penalties, grammars and
log-probabilities. `runner` keeps the rounds that compute some of a prompt, and those in which a row wants to
be traced. A grammar has to see what the small models guess, so there the host waits between the two halves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.decoding.sampling import Filters
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.limits import LONGEST_DRAFT, MOST_TOP_LOGPROBS
from langchain_eft.engine.models.compilation import compiled
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds.cuda_graphs import CudaRecorder, Graphs, Recorder
from langchain_eft.engine.rounds.result import RoundResult
from langchain_eft.engine.rounds.shape import RoundShape, TermSlot
from langchain_eft.engine.rounds.staging import Moment, PackedTensors, PendingCopy, now, seconds_between
from langchain_eft.engine.rounds.static import DecodeRound, RoundState
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow

_SHORTEST_CONTEXT = 1024
"""A kernel that follows each row's own length loses nothing by a bound that is too high."""

_DRAFT_LENGTHS = (0, *DRAFT_LENGTHS, 12, LONGEST_DRAFT)
_RECORDED_DRAFT_LENGTHS = (6, 4, 2, 0)
_MOST_SHAPES = 256


def decodes_statically(config: EngineConfig, placement: Placement) -> bool:
    """Whether decoding rounds are programs over static tensors: by default on a GPU that holds all models.

    Raises:
        RecipeError: They are demanded, and the models are spread over devices or processes; or `compile` is,
            and nothing would be compiled.
    """
    if config.static_rounds and not placement.on_single_device:
        raise RecipeError(
            "static_rounds=True needs all models whole on one device: leave `small_device`, `device_map` "
            "and `tensor_parallel` at their defaults, or `static_rounds` at None."
        )
    on_cuda = placement.device.type == "cuda" and placement.on_single_device
    static = on_cuda if config.static_rounds is None else config.static_rounds
    if config.compile and not static:
        raise RecipeError(
            "compile=True compiles static rounds, and this engine decodes without them: leave it off, or set "
            "`static_rounds=True` if all models are whole on one device."
        )
    return static


def overlaps_rounds(config: EngineConfig, placement: Placement) -> bool:
    """Whether the host launches a static round before it has read the last one: by default on a GPU."""
    return placement.device.type == "cuda" if config.overlap_rounds is None else config.overlap_rounds


def recorder_for(config: EngineConfig, device: torch.device) -> Recorder | None:
    """What records rounds there, or None."""
    return CudaRecorder() if config.cuda_graphs and device.type == "cuda" else None


@dataclass(frozen=True)
class PendingRound:
    """A round that the device has been given and the host has not read yet.

    Attributes:
        drafts: Its rows, in order, and what is guessed for them.
    """

    drafts: dict[RequestState, Draft]
    _shape: RoundShape
    _copy: PendingCopy
    _moments: tuple[Moment, Moment, Moment]
    _recorded: bool


class StaticRunner:
    """Runs decoding rounds.

    Args:
        family: The models.
        pools: Their KV memory.
        num_blocks: Blocks of one variant.
        config: How to use the machine.
    """

    def __init__(
        self, family: ModelFamily, pools: Sequence[KVPool], num_blocks: int, config: EngineConfig
    ) -> None:
        self._state = RoundState(family, pools, num_blocks, config.block_size, config.max_batch_size)
        recorder = recorder_for(config, self._state.device)
        self._graphs = Graphs(recorder, keep=(self._state.last, self._state.num_output_tokens))
        self._rounds: OrderedDict[RoundShape, DecodeRound] = OrderedDict()
        self._config = config
        if config.compile:
            for model in family.models:
                model.compiled = compiled(model.body)
        if recorder is not None:
            self.record_common()

    def record_common(self) -> None:
        """Record the rounds that requests are most likely to start with, the largest first."""
        family, sizes = self._state.family, self._config.cuda_graph_batch_sizes
        for rows in sorted({min(_power(rows), self._config.max_batch_size) for rows in sizes}, reverse=True):
            for shape in common_shapes(family, rows):
                decoding = self._round(shape)
                if shape.drafting:
                    self._graphs.prepare((shape, "draft"), decoding.draft)
                self._graphs.prepare((shape, "verify"), decoding.verify)

    def takes(self, row: ScheduledRow) -> bool:
        """Whether a row's round can be a static one."""
        return row.decodes and not row.state.request.trace

    def launch(
        self, drafts: Mapping[RequestState, Draft], previous: PendingRound | None = None
    ) -> PendingRound:
        """Give the device a round.

        Args:
            drafts: Its rows, and what is to be guessed for them.
            previous: The last round, if it has not been read: its rows go on from where it leaves them.
        """
        shape, places = self._shape(drafts, previous)
        decoding, place = self._round(shape), self._state.device
        keys = [(shape, "draft")] if shape.drafting else []
        recorded = all(key in self._graphs for key in [*keys, (shape, "verify")])
        host = decoding.inbox.open()
        self._write(host, shape, places, drafts, previous)
        if shape.grammar and not shape.drafting:
            _allow(host, list(drafts), [draft.given_tokens for draft in drafts.values()], self._size)
        started = now(place)
        decoding.inbox.send()
        if shape.drafting:
            self._graphs.run((shape, "draft"), decoding.draft)
        drafted = now(place)
        if shape.grammar and shape.drafting:
            drafts_made = zip(decoding.draft_tokens.tolist(), drafts.values(), strict=False)
            _allow(host, list(drafts), [tokens[: draft.count] for tokens, draft in drafts_made], self._size)
            decoding.inbox.send()
        self._graphs.run((shape, "verify"), decoding.verify)
        verified = now(place)
        return PendingRound(
            dict(drafts), shape, decoding.outbox.send(), (started, drafted, verified), recorded
        )

    def collect(self, pending: PendingRound) -> RoundResult:
        """Wait for a round's results; rows that have ended since its launch have none."""
        shape, content = pending._shape, pending._copy.read()
        names = ("draft_tokens", "count", "tokens", "accepted", "draft_samples")
        numbers = {name: content[name].tolist() for name in names}
        result = RoundResult()
        for row, (state, draft) in enumerate(pending.drafts.items()):
            if state.ended:
                continue
            draft_tokens = _until_end(state, numbers["draft_tokens"][row][: numbers["count"][row]])
            accepted = min(numbers["accepted"][row], len(draft_tokens))
            for prompt in state.prompts.values():
                prompt.num_computed_tokens += 1 + accepted
            result.outcomes[state] = RowOutcome(
                tokens=numbers["tokens"][row][: accepted + 1],
                draft=draft,
                draft_tokens=draft_tokens,
                draft_samples=[
                    sample if shape.draft_samples and sample >= 0 else None
                    for sample in numbers["draft_samples"][row][: accepted + 1]
                ],
                logprobs=_logprobs(content, row, accepted + 1, state) if shape.logprobs else [],
            )
        if pending._recorded:
            started, drafted, verified = pending._moments
            if shape.drafting:
                seconds = seconds_between(started, drafted) / shape.num_draft_tokens
                result.draft_passes = [(len(pending.drafts), seconds)] * shape.num_draft_tokens
            tokens_run = sum(numbers["count"][: len(pending.drafts)]) + len(pending.drafts)
            result.verify_pass = tokens_run, seconds_between(drafted, verified)
        return result

    @property
    def _size(self) -> int:
        return len(self._state.family.vocabulary)

    def _round(self, shape: RoundShape) -> DecodeRound:
        if shape not in self._rounds:
            self._rounds[shape] = DecodeRound(shape, self._state)
        self._rounds.move_to_end(shape)
        if len(self._rounds) > _MOST_SHAPES:
            oldest, _ = self._rounds.popitem(last=False)
            for half in ("draft", "verify"):
                self._graphs.forget((oldest, half))
        return self._rounds[shape]

    def _shape(
        self, drafts: Mapping[RequestState, Draft], previous: PendingRound | None
    ) -> tuple[RoundShape, list[list[int]]]:
        """The round's shape, and the slot of every term of every row."""
        states = list(drafts)
        requests = [s.request for s in states]
        params = [request.sampling for request in requests]
        slots, places = arrange([s.formula for s in states])
        most = max(draft.count for draft in drafts.values())
        fixed = [request.speculation for request in requests if isinstance(request.speculation, int)]
        longest = max(
            len(prompt.tokens) + _ahead(s, previous) + draft.count
            for s, draft in drafts.items()
            for prompt in s.prompts.values()
        )
        filters = Filters.of(params)
        measured = any(request.speculation == "auto" for request in requests)
        shape = RoundShape(
            rows=min(_power(len(states)), self._config.max_batch_size),
            num_draft_tokens=min(k for k in (*_DRAFT_LENGTHS, *fixed) if k >= most),
            drafting=any(draft.runs_model for draft in drafts.values()),
            context=_power(max(longest, _SHORTEST_CONTEXT)),
            slots=slots,
            # Few shapes are recorded sooner than many: any random row makes room for greedy ones.
            filters=replace(filters, greedy=True, top_k=_power(filters.top_k) if filters.top_k else 0),
            draft_samples=(filters.sampled or measured) and any(slot.role == "drafts" for slot in slots),
            conservative=any(s.formula.conservative for s in states),
            nucleus=any(s.formula.conservative and s.formula.top_p < 1 for s in states),
            grammar=any(s.grammar is not None for s in states),
            penalties=any(p.has_penalties for p in params),
            biases=_power(max(len(p.logit_bias) for p in params)),
            logprobs=any(request.top_logprobs is not None for request in requests),
        )
        return shape, places

    def _write(
        self,
        host: PackedTensors,
        shape: RoundShape,
        places: list[list[int]],
        drafts: Mapping[RequestState, Draft],
        previous: PendingRound | None,
    ) -> None:
        """Write down what the device has to know."""
        states, rows = list(drafts), len(drafts)
        requests = [s.request for s in states]
        params = [request.sampling for request in requests]
        earlier = {s: row for row, s in enumerate(previous.drafts)} if previous else {}

        def column(name: str, values: list[int] | list[float] | list[bool]) -> None:
            host[name].numpy()[:rows] = values

        column("source", [earlier.get(s, -1) + 1 for s in states])
        column("last", [s.tokens[-1] for s in states])
        column("num_output_tokens", [s.num_output_tokens for s in states])
        column("limit", [request.max_tokens for request in requests])
        column("prompt", [len(request.prompt_ids) for request in requests])
        column("count", [draft.count for draft in drafts.values()])
        column("seed", [p.seed for p in params])
        column("greedy", [p.temperature == 0 for p in params])
        host["temperature"].fill_(1.0)
        column("temperature", [p.temperature or 1.0 for p in params])
        column("top_k", [p.top_k for p in params])
        host["top_p"].fill_(1.0)
        column("top_p", [p.top_p for p in params])
        column("min_p", [p.min_p for p in params])
        for row, draft in enumerate(drafts.values()):
            if draft.given_tokens:
                host["given"].numpy()[row, : draft.count] = [token + 1 for token in draft.given_tokens]
        for row, (s, slots) in enumerate(zip(states, places, strict=True)):
            self._write_terms(host, shape, row, s, slots)
        if shape.penalties:
            _write_penalties(host, states)

    def _write_terms(
        self, host: PackedTensors, shape: RoundShape, row: int, s: RequestState, slots: list[int]
    ) -> None:
        """Write down where a row's terms read, and how much they count."""
        formula, slot_of = s.formula, dict(zip(s.formula.terms, slots, strict=True))
        numbers = {name: host[name].numpy() for name in ("used", "start", "variant", "table")}
        for term, slot in slot_of.items():
            prompt = s.prompts[term.prompt_name]
            numbers["used"][slot, row] = True
            numbers["start"][slot, row] = prompt.num_prompt_tokens
            numbers["variant"][slot, row] = term.variant
            blocks = np.asarray(prompt.block_table[: numbers["table"].shape[2]], dtype=np.int32)
            numbers["table"][slot, row, : len(blocks)] = blocks + term.variant * self._state.num_blocks
        host["base"].numpy()[row] = slot_of.get(formula.base, slots[0])
        known = [formula.at(s.num_output_tokens + step) for step in range(shape.num_draft_tokens + 1)]
        alike = len(set(map(id, known))) == 1
        for step, coefficients in enumerate(known[:1] if alike else known):
            at = slice(None) if alike else step
            sums = {"target": coefficients.target, "draft": coefficients.draft or ()}
            if shape.conservative:
                sums |= {"small": coefficients.small or (), "upscale": coefficients.upscale or ()}
            for name, summands in sums.items():
                for term, weight in summands:
                    host[name].numpy()[slot_of[term], row, at] = weight
        if shape.conservative:
            host["conservative"].numpy()[row] = formula.conservative
            host["upscale_top_p"].numpy()[row] = formula.top_p
            host["unscaled"].numpy()[row] = formula.unscaled


def common_shapes(family: ModelFamily, rows: int) -> list[RoundShape]:
    """Shapes of rounds for one behaviour at a time with the default settings, greedy or not, largest first.

    Args:
        family: The models.
        rows: Rows with padding.
    """
    formulas = [
        build_formula(family.base, family.behaviors, {name: 1.0}, unscaled=family.unscaled is not None)
        for name in family.behaviors
    ]
    kinds = {(arrange([formula])[0], formula.conservative) for formula in formulas}
    return [
        RoundShape(
            rows=rows,
            num_draft_tokens=num_draft_tokens,
            drafting=num_draft_tokens > 0,
            context=_SHORTEST_CONTEXT,
            slots=slots,
            filters=Filters(greedy=True, sampled=sampled, top_k=0, top_p=sampled, min_p=False),
            draft_samples=True,
            conservative=conservative,
            nucleus=False,
            grammar=False,
            penalties=False,
            biases=1,
            logprobs=False,
        )
        for num_draft_tokens in _RECORDED_DRAFT_LENGTHS
        for sampled in (True, False)
        for slots, conservative in sorted(kinds)
        if any(slot.role == "drafts" for slot in slots)
    ]


def arrange(formulas: Sequence[Formula[Term]]) -> tuple[tuple[TermSlot, ...], list[list[int]]]:
    """Slots that hold the terms of every row, no more than some row needs of each kind.

    Returns:
        The slots, sorted, and for every formula the slot of each of its terms.
    """
    wanted = [
        [TermSlot(term.model, "drafts" if term in f.draft_terms else "verifies") for term in f.terms]
        for f in formulas
    ]
    most: Counter[TermSlot] = Counter()
    for kinds in wanted:
        most |= Counter(kinds)
    slots = tuple(sorted(most.elements()))
    return slots, [_fill(slots, kinds) for kinds in wanted]


def _fill(slots: Sequence[TermSlot], kinds: Sequence[TermSlot]) -> list[int]:
    """The next free slot of its kind for each of a row's terms."""
    free = {kind: slots.index(kind) for kind in kinds}
    places = []
    for kind in kinds:
        places.append(free[kind])
        free[kind] += 1
    return places


def _write_penalties(host: PackedTensors, states: Sequence[RequestState]) -> None:
    for row, s in enumerate(states):
        params = s.request.sampling
        host["repetition"].numpy()[row] = params.repetition_penalty
        if not params.has_penalties:
            continue
        host["penalized"].numpy()[row] = True
        host["frequency"].numpy()[row] = params.frequency_penalty
        host["presence"].numpy()[row] = params.presence_penalty
        host["history"].numpy()[row, : len(s.tokens)] = s.tokens
        host["biased"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias)
        host["bias"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias.values())


def _allow(
    host: PackedTensors, states: Sequence[RequestState], guesses: Sequence[Sequence[int]], size: int
) -> None:
    """Write down which tokens the grammars allow after each guess."""
    allowed = host["allowed"].numpy()
    allowed[:] = -1
    for row, (s, tokens) in enumerate(zip(states, guesses, strict=True)):
        if s.grammar is None:
            continue
        for step in range(len(tokens) + 1):
            bits = np.zeros(allowed.shape[2] * 32, dtype=np.uint8)
            bits[:size] = s.grammar.mask(tokens[:step]).numpy()
            allowed[row, step] = np.packbits(bits, bitorder="little").view(np.int32)


def _logprobs(content: PackedTensors, row: int, count: int, state: RequestState) -> list[TokenLogprobs]:
    """What a request wants to know of log p at its first `count` positions."""
    wanted = state.request.top_logprobs
    if wanted is None:
        return []
    top = min(wanted, MOST_TOP_LOGPROBS)
    found = []
    for step in range(count):
        tokens = content["top_tokens"][row, step, :top].tolist()
        values = content["top_logprobs"][row, step, :top].tolist()
        pairs = tuple(zip(tokens, values, strict=True))
        found.append(TokenLogprobs(float(content["logprob"][row, step]), pairs))
    return found


def _until_end(state: RequestState, tokens: list[int]) -> list[int]:
    """Guesses up to the first that ends the answer."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if state.ends_with(token)), len(tokens))]


def _ahead(state: RequestState, previous: PendingRound | None) -> int:
    """Most tokens that a round still unread may add."""
    draft = previous.drafts.get(state) if previous else None
    return 0 if draft is None else draft.count + 1


def _power(number: int) -> int:
    """The smallest power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()
