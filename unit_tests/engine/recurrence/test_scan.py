"""The scan against a plain loop in float64, and the kernel against its definition."""

from itertools import zip_longest

import pytest
import torch

from langchain_eft.engine.recurrence import scan as module
from langchain_eft.engine.recurrence.scan import ScanInputs, scan
from langchain_eft.engine.recurrence.state_pool import StatePool
from unit_tests.engine.recurrence.packed import batch, passes

LENGTH = 70
KINDS = {
    "delta rule": {"key_heads": 2, "heads": 4, "decays": 1, "rate": True},
    "decay of channels": {"key_heads": 2, "heads": 2, "decays": 24, "rate": True},
    "state space": {"key_heads": 1, "heads": 3, "decays": 1, "rate": False},
}


def inputs_of(kind, length=LENGTH, seed=0) -> ScanInputs:
    torch.manual_seed(seed)
    numbers, key_dim, value_dim = KINDS[kind], 24, 20
    heads, key_heads = numbers["heads"], numbers["key_heads"]
    keys = torch.nn.functional.normalize(torch.randn(length, key_heads, key_dim), dim=-1)
    decay = torch.rand(length, heads, numbers["decays"]) * 0.5 + 0.5
    rate = torch.rand(length, heads) if numbers["rate"] else None
    query, value = torch.randn(length, key_heads, key_dim), torch.randn(length, heads, value_dim)
    return ScanInputs(query, keys, value, decay, rate)


def plain(inputs: ScanInputs) -> torch.Tensor:
    """One text from its beginning, in float64."""
    query, key, value, decay, rate = (None if x is None else x.double() for x in inputs)
    repeated = value.shape[1] // key.shape[1]
    query, key = (x.repeat_interleave(repeated, 1) for x in (query, key))
    state, results = torch.zeros(value.shape[1], key.shape[2], value.shape[2], dtype=torch.float64), []
    for i in range(len(value)):
        state = state * decay[i][..., None]
        update = value[i]
        if rate is not None:
            update = (update - torch.einsum("hkv,hk->hv", state, key[i])) * rate[i][:, None]
        state = state + torch.einsum("hk,hv->hkv", key[i], update)
        results.append(torch.einsum("hkv,hk->hv", state, query[i]))
    return torch.stack(results)


def part(inputs: ScanInputs, first: int, count: int) -> ScanInputs:
    return ScanInputs(*(None if x is None else x[first : first + count] for x in inputs))


def joined(parts) -> ScanInputs:
    return ScanInputs(*(None if xs[0] is None else torch.cat(xs) for xs in zip(*parts, strict=True)))


def walk(texts, seed=0) -> list[torch.Tensor]:
    """The last result of each token of several texts, in passes of random sizes."""
    rng, pool = torch.Generator().manual_seed(seed), StatePool(len(texts))
    results = [torch.zeros_like(text.value) for text in texts]
    for group in zip_longest(*(passes(len(text.value), rng) for text in texts)):
        live = [(slot, taken) for slot, taken in enumerate(group) if taken]
        given = joined([part(texts[slot], position, count) for slot, (position, count, _) in live])
        rows = batch(pool, [slot for slot, _ in live], [taken for _, taken in live])
        out = scan(given, rows, 0).split([count for _, (_, count, _) in live])
        for (slot, (position, count, _)), result in zip(live, out, strict=True):
            results[slot][position : position + count] = result
    return results


@pytest.fixture(params=["kernel", "definition"])
def way(request, monkeypatch):
    if request.param == "definition":
        monkeypatch.setattr(module, "can_compile", lambda: False)
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_texts_in_passes_of_any_size_equal_a_plain_loop(kind, way):
    texts = [inputs_of(kind, length, seed) for seed, length in enumerate((LENGTH, 5, 33))]
    for text, results in zip(texts, walk(texts), strict=True):
        assert (results - plain(text)).abs().max() < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_same_bit_for_bit_in_company_and_in_passes_of_other_sizes(kind):
    texts = [inputs_of(kind, LENGTH, seed) for seed in range(3)]
    together = walk(texts)
    for text, results in zip(texts, together, strict=True):
        assert torch.equal(walk([text], seed=7)[0], results)


def test_padding_and_other_slots_keep_their_states(way):
    text, pool = inputs_of("delta rule", 8), StatePool(2)
    rows = batch(pool, [0, 1], [(0, 3, 3), (0, 0, 0)], num_tokens=8)
    scan(text, rows, 0)
    memory = pool.scan(0, 4, 24, 20, text.stored())
    assert memory.ends.tolist()[:2] == [3, 0]
    assert memory.states[0].any()
    assert not memory.states[1].any()
