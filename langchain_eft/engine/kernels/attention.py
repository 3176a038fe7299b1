"""Attention over the blocks of the KV cache in place: the same kernel decodes and reads prompts.

The pool keeps keys and values in tiles of 16 slots, so that 16 keys are a vector. A row's positions are taken
in groups of 16, and 8 groups are a segment of the online softmax; both are counted from position 0. A hidden
position adds an exact zero, and a hidden segment changes nothing. So the result of a query is the same bit
for bit, whatever rows, chunks, threads and blocks there are, and on every processor. Where the positions of a
group are not side by side in the pool, because blocks are smaller, they are copied first.

A unit of work is some queries of a row, with the query heads of one key head. Pairs of a query and a head
attend in tiles of 4 or 8, so that a key is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.attention_call import RING, SEGMENT, SIGHT, Arguments, Rows
from langchain_eft.engine.kernels.compiler import called
from langchain_eft.engine.kernels.lanes import LOWEST
from langchain_eft.engine.kernels.simd import VECTOR_BYTES
from langchain_eft.engine.kernels.structures import by_rows, draw, enter, reader
from langchain_eft.engine.kernels.target import LANES, Target

_AHEAD = 2
"""Groups from the one that is read to the one that memory is asked for."""

_read = reader(Arguments, of_rows=Rows)
_WEIGHTS_STEP = 4 * SEGMENT
_HIDDEN, _NOTHING = np.float32(LOWEST), np.float32(0)


class Unit(NamedTuple):
    """A unit of work and its memory.

    Attributes:
        row: The row.
        head: The key head.
        token: First of its queries on the packed axis.
        position: The position of that query.
        pairs: Number of its pairs.
        sums: Address of the pairs' weighted values, [pairs, columns].
        columns_step: Bytes from a pair's sums to the next one's.
        tops: Address of the pairs' largest scores, in all lanes of a vector.
        totals: Address of the sums of their weights.
        query: Address of their queries, [pairs, dim].
        sights: Address of what they see.
        weights: Address of the weights of a tile in a segment.
        ring: Address of the addresses of `RING` groups.
        copies: Address of groups that are copied.
    """

    row: int
    head: int
    token: int
    position: int
    pairs: int
    sums: int
    columns_step: int
    tops: int
    totals: int
    query: int
    sights: int
    weights: int
    ring: int
    copies: int


def build(name: str, target: Target) -> Callable[..., None]:
    """The kernel `store_rows` or `attend`. The argument is the address of `Arguments`."""
    if name == "store_rows":
        return by_rows(_read, _store_row)
    return _attend(8 if target.has_avx512 else 4)


@called
def _entry(numbers: int, row: int) -> Any:
    return np.int64(simd.load_int32(numbers + row * 4))


@called
def _first_token(call: Arguments, row: int) -> Any:
    return _entry(call.starts, row) if call.starts else row * call.max_queries


@called
def _slot(call: Arguments, row: int, position: int) -> Any:
    table = call.table + row * call.table_step
    return _entry(table, position // call.block_size) * call.block_size + position % call.block_size


@called
def _tile(call: Arguments, slot: int, head: int) -> Any:
    """Address of the tile that has a slot."""
    number = slot // LANES * (call.heads // call.group) + head
    return call.pool + number * VECTOR_BYTES * (call.dim + call.value_dim)


@called
def _load(address: int) -> Any:
    return simd.load(address, 1, VECTOR_BYTES, "float32")


@called
def _copy(source: int, source_step: int, target: int, target_step: int, count: int) -> None:
    """Copy numbers that lie some bytes apart."""
    for i in range(count):
        simd.store_float(simd.load_float(source + i * source_step), target + i * target_step)


@called
def _copy_row(source: int, target: int, count: int) -> None:
    """Copy numbers that lie side by side."""
    whole = count // LANES * VECTOR_BYTES
    for offset in range(0, whole, VECTOR_BYTES):
        simd.store(_load(source + offset), target + offset, VECTOR_BYTES, 1)
    _copy(source + whole, 4, target + whole, 4, count % LANES)


@called
def _store_row(call: Arguments, row: int) -> None:
    """Write the new keys and values of a row to the pool."""
    count, kv_heads = _entry(call.queries, row), call.heads // call.group
    for i in range(count):
        token = _first_token(call, row) + i
        slot = _slot(call, row, _entry(call.lengths, row) - count + i)
        lane = slot % LANES
        if i == 0 or lane == 0:  # the numbers of a key lie in as many lines, which memory brings at once
            for head in range(kv_heads):
                tile = _tile(call, slot, head)
                for line in range(call.dim):
                    simd.prefetch(tile + line * VECTOR_BYTES, VECTOR_BYTES)
        for head in range(kv_heads):
            key = call.keys + token * call.key_step + head * call.key_head_step
            value = call.values + token * call.value_step + head * call.value_head_step
            tile = _tile(call, slot, head)
            _copy(key, 4, tile + lane * 4, VECTOR_BYTES, call.dim)
            _copy_row(value, tile + call.dim * VECTOR_BYTES + lane * call.value_dim * 4, call.value_dim)


@called
def _find_groups(call: Arguments, unit: Unit, start: int, stop: int) -> None:
    """Find the groups of a segment, and copy those that are not side by side."""
    for position in range(start, min(start + SEGMENT, stop), LANES):
        lanes = min(LANES, stop - position)
        slot = _slot(call, unit.row, position)
        group = _tile(call, slot, unit.head)
        if call.block_size % LANES and not _is_tile(call, unit.row, position, lanes):
            copies_step = VECTOR_BYTES * (call.dim + call.value_dim)
            group = unit.copies + position // LANES % RING * copies_step
            for lane in range(lanes):
                slot = _slot(call, unit.row, position + lane)
                tile, at, values = _tile(call, slot, unit.head), slot % LANES, call.dim * VECTOR_BYTES
                _copy(tile + at * 4, VECTOR_BYTES, group + lane * 4, VECTOR_BYTES, call.dim)
                value, step = tile + values, call.value_dim * 4
                _copy_row(value + at * step, group + values + lane * step, call.value_dim)
        simd.store_int64(group, unit.ring + position // LANES % RING * 8)


@called
def _is_tile(call: Arguments, row: int, position: int, lanes: int) -> Any:
    """Whether some positions have the first slots of a tile."""
    first = _slot(call, row, position)
    aligned = first % LANES == 0
    for lane in range(1, lanes):
        aligned &= _slot(call, row, position + lane) == first + lane
    return aligned


@called
def _begin_unit(call: Arguments, row: int, head: int, first: int, scratch: int) -> Unit:
    """Copy the queries, say what they see, and start their sums. Copies of the last pair fill its tile up."""
    count = _entry(call.queries, row)
    number = min(call.at_once, count - first) * call.group
    places = call.at_once * call.group + 7
    columns_step = (call.value_dim + LANES - 1) // LANES * VECTOR_BYTES
    tops = scratch + places * columns_step
    totals = tops + places * VECTOR_BYTES
    weights = totals + places * VECTOR_BYTES
    copies = weights + 8 * _WEIGHTS_STEP
    ring = copies + RING * VECTOR_BYTES * (call.dim + call.value_dim)
    query = ring + RING * 8
    sights = query + places * call.dim * 4
    token = _first_token(call, row) + first
    position = _entry(call.lengths, row) - count + first
    unit = Unit(
        row, head, token, position, number,
        scratch, columns_step, tops, totals, query, sights, weights, ring, copies,
    )  # fmt: skip
    for place in range(number + 7):
        pair = min(place, number - 1)
        at, of_head = pair // call.group, head * call.group + pair % call.group
        source = call.query + (token + at) * call.query_step + of_head * call.query_head_step
        _copy_row(source, query + place * call.dim * 4, call.dim)
        sight, seen = sights + place * SIGHT, position + at + 1
        simd.store_int32(max(seen - call.window, 0) if call.window else 0, sight)
        simd.store_int32(seen, sight + 4)
        if call.sinks:
            simd.store_float(simd.load_float(call.sinks + of_head * 4), sight + 8)
        simd.store(simd.full(_HIDDEN, 1), tops + place * VECTOR_BYTES, VECTOR_BYTES, 1)
        simd.store(simd.zeros(1), totals + place * VECTOR_BYTES, VECTOR_BYTES, 1)
        for column in range(0, columns_step, VECTOR_BYTES):
            simd.store(simd.zeros(1), scratch + place * columns_step + column, VECTOR_BYTES, 1)
    return unit


@called
def _end_unit(call: Arguments, unit: Unit) -> None:
    """Write the results."""
    for pair in range(unit.pairs):
        total = _load(unit.totals + pair * VECTOR_BYTES)
        if call.sinks:
            sink = simd.full(simd.load_float(unit.sights + pair * SIGHT + 8), 1)
            total = simd.add(total, simd.exp(simd.subtract(sink, _load(unit.tops + pair * VECTOR_BYTES))))
        sums = unit.sums + pair * unit.columns_step
        for column in range(0, unit.columns_step, VECTOR_BYTES):
            simd.store(simd.divide(_load(sums + column), total), sums + column, VECTOR_BYTES, 1)
        token, head = unit.token + pair // call.group, unit.head * call.group + pair % call.group
        _copy_row(sums, call.out + (token * call.heads + head) * call.value_dim * 4, call.value_dim)


@called
def _clear_padding(call: Arguments, row: int, head: int, first: int, stop: int) -> None:
    """Write zeros for queries that a row does not have."""
    for query in range(first, stop):
        entry = (row * call.max_queries + query) * call.heads + head * call.group
        for i in range(call.group * call.value_dim):
            simd.store_float(_NOTHING, call.out + (entry * call.value_dim + i) * 4)


@cache
def _attend_tile(rows: int) -> Any:
    """What `rows` pairs get from a segment is added to their sums."""

    @called
    def weigh(
        call: Arguments,
        unit: Unit,
        place: int,
        start: int,
        stop: int,
        first_seen: int,
        last_seen: int,
        ahead: int,
    ) -> Any:
        """Write the weights of the positions; returns the factor on all earlier sums."""
        query, step = unit.query + place * call.dim * 4, call.dim * 4
        sights, tops = unit.sights + place * SIGHT, unit.tops + place * VECTOR_BYTES
        totals = unit.totals + place * VECTOR_BYTES
        top = simd.full(_HIDDEN, rows)
        for position in range(start, stop, LANES):
            keys = simd.load_int64(unit.ring + position // LANES % RING * 8)
            if position + _AHEAD * LANES < ahead:
                coming = simd.load_int64(unit.ring + (position // LANES + _AHEAD) % RING * 8)
                for offset in range(0, (call.dim + call.value_dim) * VECTOR_BYTES, 256):
                    simd.prefetch(coming + offset, 256)
            scores = simd.zeros(rows)
            for i in range(call.dim):
                scores = simd.outer(scores, _load(keys + i * VECTOR_BYTES), query + i * 4, step)
            scores = simd.multiply(scores, simd.full(call.scaling, rows))
            if call.softcap > 0:
                cap = simd.full(call.softcap, rows)
                scores = simd.multiply(simd.tanh(simd.divide(scores, cap)), cap)
            if position < first_seen or position + LANES > last_seen:
                scores = simd.between(scores, sights, SIGHT, position, _HIDDEN)
            top = simd.maximum(top, scores)
            simd.store(scores, unit.weights + (position - start) * 4, _WEIGHTS_STEP, rows)
        old = simd.load(tops, rows, VECTOR_BYTES, "float32")
        new = simd.maximum(old, simd.row_maximum(top, rows))
        decay = simd.exp(simd.subtract(old, new))
        total = simd.zeros(rows)
        for position in range(start, stop, LANES):
            address = unit.weights + (position - start) * 4
            weight = simd.exp(simd.subtract(simd.load(address, rows, _WEIGHTS_STEP, "float32"), new))
            if position < first_seen or position + LANES > last_seen:
                weight = simd.between(weight, sights, SIGHT, position, _NOTHING)
            total = simd.add(total, weight)
            simd.store(weight, address, _WEIGHTS_STEP, rows)
        before = simd.multiply(simd.load(totals, rows, VECTOR_BYTES, "float32"), decay)
        simd.store(simd.add(before, simd.row_sum(total, rows)), totals, VECTOR_BYTES, rows)
        simd.store(new, tops, VECTOR_BYTES, rows)
        return decay

    @called
    def attend_tile(call: Arguments, unit: Unit, place: int, start: int, ahead: int) -> None:
        sights = unit.sights + place * SIGHT
        stop = min(start + SEGMENT, _entry(sights + (rows - 1) * SIGHT + 4, 0))
        if stop <= start:
            return
        first_seen, last_seen = _entry(sights + (rows - 1) * SIGHT, 0), _entry(sights + 4, 0)
        decay = weigh(call, unit, place, start, stop, first_seen, last_seen, ahead)
        step = unit.columns_step
        for column in range(0, step, VECTOR_BYTES):
            sums = unit.sums + place * step + column
            result = simd.multiply(simd.load(sums, rows, step, "float32"), decay)
            for position in range(start, stop, LANES):
                group = simd.load_int64(unit.ring + position // LANES % RING * 8)
                values = group + call.dim * VECTOR_BYTES + column
                weights = unit.weights + (position - start) * 4
                for lane in range(min(LANES, stop - position)):
                    value = _load(values + lane * call.value_dim * 4)
                    result = simd.outer(result, value, weights + lane * 4, _WEIGHTS_STEP)
            simd.store(result, sums, step, rows)

    return attend_tile


def _attend(most_rows: int) -> Callable[..., None]:
    """The kernel that attends.

    Args:
        most_rows: Pairs of the largest tile, 8 or 4: what the processor's registers hold.
    """
    tile_4, tile_n = _attend_tile(4), _attend_tile(most_rows)

    @called
    def attend_segment(call: Arguments, unit: Unit, start: int, ahead: int) -> None:
        place = 0
        while place < unit.pairs:
            if unit.pairs - place <= 4:  # fewer would wait for each sum as long as 4
                tile_4(call, unit, place, start, ahead)
                place += 4
            else:
                tile_n(call, unit, place, start, ahead)
                place += most_rows
            ahead = 0  # the first tile has asked for all

    @called
    def attend_unit(call: Arguments, row: int, head: int, first: int, scratch: int) -> None:
        count = _entry(call.queries, row)
        if not call.starts:
            end = min(first + call.at_once, call.max_queries)
            _clear_padding(call, row, head, max(first, count), end)
        if first >= count:
            return
        unit = _begin_unit(call, row, head, first, scratch)
        stop = unit.position + unit.pairs // call.group
        begin = _entry(unit.sights, 0) // SEGMENT * SEGMENT
        _find_groups(call, unit, begin, stop)
        for start in range(begin, stop, SEGMENT):
            _find_groups(call, unit, start + SEGMENT, stop)
            attend_segment(call, unit, start, min(start + 2 * SEGMENT, stop))
        _end_unit(call, unit)

    def attend(address: int) -> None:
        call = _read(address)
        kv_heads, chunks = call.heads // call.group, (call.max_queries + call.at_once - 1) // call.at_once
        scratch = call.scratch + enter(address) * call.scratch_step
        units = call.rows * kv_heads * chunks
        unit = draw(address, 1)
        while unit < units:
            row, head = unit // (kv_heads * chunks), unit // chunks % kv_heads
            attend_unit(call, row, head, unit % chunks * call.at_once, scratch)
            unit = draw(address, 1)

    return attend
