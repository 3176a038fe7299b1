"""Packed weights on a CPU: models decode like a reference loop in float32 over the same weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.kernels.formats import BFLOAT16, FLOAT16, FLOAT32, INT8
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.models.packing import pack_weights
from unit_tests.helpers import GREEDY, greedy_answers, request, slow, values, without_kernels
from unit_tests.tiny import Reference, TinyFamily

PROMPTS = ([*range(30, 55)], [9, 9, 8], [*range(100, 110)])
MIXTURES = [{}, {"one": 1.0}, {"two": 1.0, "one": 0.5}, {"full": 0.5, "two": 0.5}]


def copy_rounded(family, folder, dtype, stored):
    """A copy of the family whose weights are rounded to a type, in files of another type."""
    shutil.copytree(family.folder, folder)
    for file in folder.rglob("*.safetensors"):
        tensors = {name: tensor.to(dtype).to(stored) for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    for file in folder.rglob("config.json"):
        settings = json.loads(file.read_text()) | {"dtype": str(stored).removeprefix("torch.")}
        file.write_text(json.dumps(settings))
    return TinyFamily(folder)


def opened(family, **config):
    return Engine(family.recipe, EngineConfig(device="cpu", kv_cache_tokens=1024, block_size=4, **config))


def formats(engine):
    """Formats of the linear layers' weights in the body of each model; None for plain weights."""
    return [
        {format_of(layer.weight) for name, layer in model.module.named_modules() if name.endswith("_proj")}
        for model in engine.family.models
    ]


def format_of(weight):
    return weight.parts[0].format if isinstance(weight, PackedWeight) else None


@pytest.fixture(scope="module")
def halves(family, tmp_path_factory):
    """The family in bfloat16."""
    return copy_rounded(family, tmp_path_factory.mktemp("half") / "family", torch.bfloat16, torch.bfloat16)


@pytest.fixture(scope="module")
def wholes(family, tmp_path_factory):
    """The same values in float32."""
    return copy_rounded(family, tmp_path_factory.mktemp("whole") / "family", torch.bfloat16, torch.float32)


@pytest.fixture(scope="module")
def expected(wholes):
    """The same weights in transformers, in float32."""
    return Reference(wholes)


@pytest.fixture(scope="module", params=["bfloat16", *slow("float32")])
def packed(request, halves, wholes):
    """An engine on files of 16 bits, and one on float32 files that hold the same values."""
    engine = opened(halves if request.param == "bfloat16" else wholes)
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("mixture", MIXTURES)
def test_halved_models_decode_like_a_plain_loop_in_float32(packed, expected, mixture):
    assert set.union(*formats(packed)) == {BFLOAT16}
    assert greedy_answers(packed, PROMPTS, mixture) == [
        expected.greedy(prompt, mixture, 8) for prompt in PROMPTS
    ]


def test_halved_models_take_half_the_memory(packed, engine):
    norms = sum(weight.numel() for model in packed.family.models for weight in model.module.parameters())
    assert packed.family.weight_bytes - 4 * norms < 0.55 * (engine.family.weight_bytes - 4 * norms)
    for model in packed.family.models:
        assert format_of(model.module.get_input_embeddings().weight) is BFLOAT16
        assert format_of(model.head) is BFLOAT16
    assert packed.family.models[0].head is packed.family.models[1].head, "the reference has the base's"


@pytest.mark.slow
def test_answers_do_not_depend_on_the_layout(halves, packed):
    with without_kernels():
        plain = opened(halves)
    try:
        assert set.union(*formats(plain)) == {None}
        for mixture in MIXTURES:
            assert greedy_answers(plain, PROMPTS, mixture) == greedy_answers(packed, PROMPTS, mixture)
    finally:
        plain.close()


@pytest.mark.slow
@pytest.mark.parametrize("small_too", [False, True])
def test_8_bits_decode_like_a_plain_loop_over_the_rounded_weights(halves, wholes, small_too):
    engine = opened(halves, quantization="int8", quantize_small_models=small_too)
    reference = Reference(wholes)
    for model in [reference.base, *([reference.small["full"]] if small_too else [])]:
        for name, layer in model.named_modules():
            if name.endswith("_proj"):
                steps = layer.weight.data.abs().amax(1, keepdim=True) / 127
                layer.weight.data = (layer.weight.data / steps).round() * steps
    try:
        kinds = formats(engine)
        assert kinds[0] == {INT8}
        assert set.union(*kinds[1:]) == {INT8 if small_too else BFLOAT16}
        # Without adapters: they are not rounded, but merged into the weights of the reference.
        for mixture in ({}, {"one": 1.0}, {"two": 0.7}) if not small_too else ({},):
            for prompt, answer in zip(PROMPTS, greedy_answers(engine, PROMPTS, mixture), strict=True):
                logprobs = reference.all_logprobs([*prompt, *answer[:-1]], len(answer), mixture)
                chosen = logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0]
                assert (logprobs.amax(1) - chosen).max() < 0.02
    finally:
        engine.close()


@pytest.mark.parametrize("kernels", [True, False])
def test_float16_rounds_the_weights_alone(family, tmp_path, kernels):
    expected = Reference(copy_rounded(family, tmp_path / "f", torch.float16, torch.float32))
    if kernels:
        engine = opened(family, dtype="float16")
    else:
        with without_kernels():
            engine = opened(family, dtype="float16")
    try:
        assert all(model.kv_layers[0].dtype == torch.float32 for model in engine.family.models)
        assert greedy_answers(engine, PROMPTS, {}) == [expected.greedy(prompt, {}, 8) for prompt in PROMPTS]
    finally:
        engine.close()


def test_speculation_and_batches_change_nothing(packed):
    alone = greedy_answers(packed, PROMPTS, {"one": 1.0})
    for speculation in (0, 1, 4, "auto"):
        for prompt, answer in zip(PROMPTS, alone, strict=True):
            ask = request(prompt, {"one": 1.0}, GREEDY, max_tokens=8, speculation=speculation)
            events = list(packed.stream(ask))
            assert [token for event in events for token in getattr(event, "tokens", ())] == answer


class Tied(nn.Module):
    """Two layers, and a head that is also the embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(10, 8)
        self.exact, self.inexact = nn.Linear(8, 8), nn.Linear(8, 8)
        self.exact.weight.data = self.exact.weight.data.bfloat16()
        self.norm = nn.LayerNorm(8, dtype=torch.bfloat16)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.embedding.weight.data = self.embedding.weight.data.half()

    def get_output_embeddings(self):
        return self.head


def test_weights_are_packed_without_a_loss():
    model = Tied()
    vectors, inexact, x = (
        model.embedding.weight.detach().float(),
        model.inexact.weight.detach(),
        torch.randn(3, 8),
    )
    pack_weights(model, int8=False)
    kinds = [format_of(layer.weight) for layer in (model.exact, model.inexact, model.head)]
    assert kinds == [BFLOAT16, FLOAT32, FLOAT16]
    assert model.embedding.weight is model.head.weight, "it is in memory once"
    assert torch.equal(model.embedding(torch.arange(10)), vectors)
    assert torch.equal(values(model.head.weight), vectors)
    torch.testing.assert_close(model.inexact(x), x @ inexact.T + model.inexact.bias)
    assert model.norm.weight.dtype == torch.float32


def test_the_head_is_not_rounded_to_8_bits():
    model = Tied()
    pack_weights(model, int8=True)
    assert [format_of(layer.weight) for layer in (model.exact, model.head)] == [INT8, FLOAT16]


def test_a_packed_weight_cannot_be_read():
    model = Tied()
    pack_weights(model, int8=False)
    weight = model.exact.weight
    assert repr(weight) == "PackedWeight(bfloat16, shape=(8, 8))"
    assert (weight.shape, weight.dtype, weight.nbytes) == ((8, 8), torch.float32, 2 * 8 * 8)
    with pytest.raises(TypeError, match="cannot read a PackedWeight"):
        torch.sin(weight)


def test_quantizing_small_models_needs_8_bits_on_a_cpu(family):
    with pytest.raises(ValueError, match="needs quantization='int8', not 'nf4'"):
        EngineConfig(quantization="nf4", quantize_small_models=True)
    with without_kernels(), pytest.raises(RecipeError, match="works only on a CPU in float32"):
        opened(family, quantization="int8", quantize_small_models=True)
    with pytest.raises(RecipeError, match=r"small models are on cpu in torch\.bfloat16"):
        opened(family, dtype="bfloat16", quantization="int8", quantize_small_models=True)
