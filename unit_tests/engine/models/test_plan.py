"""The pass of a fused model as one program: what its layers compute, and the same bits in any company."""

import pytest
import torch
from torch import nn

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.fusion import fuse
from langchain_eft.engine.models.packing import pack_weights
from langchain_eft.engine.models.plan import Plan
from unit_tests.engine.models.test_fusion import FAMILIES, TARGETS, adapter, build

BLOCK = 4
LENGTHS, VARIANTS = (110, 3, 70), (0, 1, 2)

each_family = pytest.mark.parametrize("family", FAMILIES)
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="plans are for CPUs")


def model_of(family):
    """A fused and packed model with two adapters, without its output layer."""
    module = build(family)
    module.set_attn_implementation(ATTENTION)
    adapters = [adapter(module, TARGETS["all"], 3), adapter(module, TARGETS["some"], 2)]
    assert fuse(module)
    pack_weights(module, int8=False)
    model = CausalModel(family, module, adapters)
    model.head = module.get_output_embeddings().weight
    return model


class Texts:
    """Texts of some variants that a model reads.

    Args:
        model: The model.
        planned: Whether it runs by its plan.
    """

    def __init__(self, model, *, planned=True):
        self.model, self.pool = model, KVPool(200)
        model.plan = Plan.of(model.module, model.variants) if planned else None
        generator = torch.Generator().manual_seed(0)
        self.tokens = [torch.randint(0, 61, (n,), generator=generator).tolist() for n in LENGTHS]
        counts = [-(-n // BLOCK) for n in LENGTHS]
        self.tables = [blocks.tolist() for blocks in torch.arange(sum(counts)).split(counts)]

    def read(self, *parts):
        """The states of some tokens: of text `i`, the `count` tokens before `end`, for each part."""
        chunks = [
            Chunk(self.tokens[i][end - count : end], end - count, VARIANTS[i], self.tables[i])
            for i, count, end in parts
        ]
        batch = pack(chunks, self.pool, BLOCK, torch.device("cpu"))
        active = sorted({VARIANTS[i] for i, *_ in parts})
        return self.model(batch, active).split([count for _, count, _ in parts])

    def all_at_once(self):
        return self.read(*((i, n, n) for i, n in enumerate(LENGTHS)))


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.fixture
def model(models, family):
    if family not in models:
        models[family] = model_of(family)
    return models[family]


@each_family
def test_a_plan_computes_what_the_layers_do(model):
    with torch.inference_mode():
        expected = Texts(model, planned=False).all_at_once()
        found = Texts(model).all_at_once()
    assert model.plan is not None
    for states, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(states, exact, atol=2e-5, rtol=2e-5)


@each_family
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_token_gets_the_same_bits_alone_in_company_and_in_chunks(model, chunk):
    whole = Texts(model).all_at_once()
    alone = Texts(model)
    for i, length in enumerate(LENGTHS):
        for end in range(chunk, length + chunk, chunk):
            count = chunk - max(0, end - length)
            (states,) = alone.read((i, count, min(end, length)))
            assert torch.equal(states, whole[i][min(end, length) - count : min(end, length)])


@pytest.mark.parametrize("family", ["llama"])
def test_a_batch_may_grow_and_the_memory_may_change(model):
    """More tokens than before, then fewer; rows that decode beside a chunk; another pool."""
    whole, texts = Texts(model).all_at_once(), Texts(model)
    first = [text[:2] for text in whole]
    assert all(map(torch.equal, texts.read((0, 2, 2), (1, 2, 2), (2, 2, 2)), first))
    rest = texts.read((0, 108, 110), (2, 1, 3))
    assert torch.equal(rest[0], whole[0][2:])
    assert torch.equal(rest[1], whole[2][2:3])
    texts.pool = KVPool(200)
    assert all(map(torch.equal, texts.all_at_once(), whole))


@pytest.mark.parametrize("family", ["qwen2"])
@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(model, threads):
    """The products of so many tokens are shared."""
    whole, texts = Texts(model).all_at_once(), Texts(model)
    torch.set_num_threads(threads)
    try:
        for _ in range(5):
            assert all(map(torch.equal, texts.all_at_once(), whole))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("family", ["llama"])
def test_results_are_kept_when_the_next_pass_runs(model):
    texts = Texts(model)
    first = texts.all_at_once()
    copies = [states.clone() for states in first]
    texts.read((1, 1, 3))
    assert all(map(torch.equal, first, copies))


def test_other_models_have_no_plan():
    module = build("llama")
    assert Plan.of(module, 1) is None
    assert fuse(module)
    assert Plan.of(module, 1) is None  # its weights are not packed
    module.base_model.layers[0].mlp.down_proj = nn.Linear(40, 24)
    assert Plan.of(module, 1) is None
