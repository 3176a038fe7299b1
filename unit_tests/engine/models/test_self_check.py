"""Supported families decode like their own forward pass. Other families are refused with the reason."""

import re
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import logging as transformers_logging

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.plan.footprint import footprint
from langchain_eft.engine.attention import paged
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from langchain_eft.engine.loading.configuration import model_class
from langchain_eft.engine.models import batch as packing
from langchain_eft.engine.models import plan, self_check
from langchain_eft.engine.models.batch import is_final
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.engine.models.families import (
    EVERYDAY,
    GROUPED,
    HYBRIDS,
    REFUSED,
    REFUSED_AFTER_LOADING,
    SUPPORTED,
    WINDOW,
    configuration,
    require,
)  # fmt: skip
from unit_tests.helpers import Recorder, request, wait_until
from unit_tests.tiny import tokenizer


class Family:
    """A base, a reference and a tuned model of one architecture, as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = cache(self._load)

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            base=str(self.folder / "base"),
            behaviors={
                "b": BehaviorDelta(tuned=str(self.folder / "tuned"), reference=str(self.folder / "reference"))
            },
        )

    def log_p(self, ids: list[int], last: int) -> torch.Tensor:
        """[last, V] log p after each of the last tokens at weight 0.7, by transformers alone."""
        base, tuned, reference = (self._logprobs(name, ids, last) for name in ("base", "tuned", "reference"))
        return (base + 0.7 * (tuned - reference)).log_softmax(-1)

    @torch.inference_mode()
    def _logprobs(self, name: str, ids: list[int], last: int) -> torch.Tensor:
        return self.module(name)(torch.tensor([ids]), use_cache=False).logits[0, -last:].log_softmax(-1)

    def _load(self, name: str) -> torch.nn.Module:
        folder = self.folder / name
        kind = model_class(AutoConfig.from_pretrained(folder))
        return kind.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(autouse=True)
def _quiet():
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def save(module: torch.nn.Module, folder: Path) -> None:
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def build(folder: Path, kind: str, extra: dict) -> Family:
    torch.manual_seed(0)
    small = configuration(kind, extra)
    by_layer = {"layer_types", "no_rope_layers", "text_config"} & extra.keys()
    deeper = {} if by_layer else {"num_hidden_layers": 3}
    model = model_class(small).from_config
    save(model(configuration(kind, extra, **deeper)), folder / "base")
    reference, tuned = model(small), model(small)
    tuned.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save(reference, folder / "reference")
    save(tuned, folder / "tuned")
    return Family(folder)


def open_engine(family: Family, budget=12) -> Engine:
    config = EngineConfig(kv_cache_tokens=512, block_size=4, max_num_batched_tokens=budget)
    return Engine(family.recipe, config)


PROMPTS = [
    [(7 * i + 11 * n) % 200 + 5 for i in range(length)] for n, length in enumerate((3, 2 * WINDOW + 1, 21))
]
STEPS = WINDOW + 2


def decode(engine: Engine, speculation) -> list[Recorder]:
    """Answers to all prompts, decoded together."""
    recorders = [Recorder() for _ in PROMPTS]
    for prompt, recorder in zip(PROMPTS, recorders, strict=True):
        generation = request(prompt, {"b": 0.7}, max_tokens=STEPS, speculation=speculation, top_logprobs=5)
        engine.submit(generation, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return recorders


def deviation(family: Family, prompt: list[int], recorder: Recorder) -> float:
    """Largest error of the reported log-probabilities; infinite if the tokens are not the greedy ones."""
    tokens = recorder.tokens
    expected = family.log_p([*prompt, *tokens[:-1]], len(tokens))
    if expected.argmax(-1).tolist() != tokens:
        return float("inf")
    reported = [logprobs for e in recorder.events if isinstance(e, TextDelta) for logprobs in e.logprobs]
    return max(
        abs(value - float(row[token]))
        for row, logprobs in zip(expected, reported, strict=True)
        for token, value in logprobs.top
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in EVERYDAY else pytest.mark.full) for kind in SUPPORTED]
)
def test_a_supported_family_decodes_like_its_own_forward_pass(kind, tmp_path):
    require(kind)
    family = build(tmp_path, kind, SUPPORTED[kind])
    engine = open_engine(family, budget=64 if kind in HYBRIDS else 12)
    try:
        plain, drafted = decode(engine, 0), decode(engine, 3)
        base = engine.family.models[0]
    finally:
        engine.close()
    for prompt, first, second in zip(PROMPTS, plain, drafted, strict=True):
        # A delta rule by chunks, as transformers computes whole texts, rounds otherwise than one by tokens.
        assert deviation(family, prompt, first) < (1e-3 if kind in HYBRIDS else 5e-5)
        assert second.tokens == first.tokens
        # The second request finds all full blocks of the prompt in the cache, without its last token.
        cached = (len(prompt) - 1) // 4 * 4
        kept = kind not in HYBRIDS or is_final(cached)  # states are kept behind long parts of prompts
        assert second.events[-1].cached_tokens == (cached if kept else 0)
    assert any(recorder.events[-1].drafted_tokens for recorder in drafted)
    sizes = footprint(find_checkpoint(str(tmp_path / "base")), torch.float32)
    assert sizes.kv_bytes == sum(base.bytes_per_token.values())
    assert sizes.state_bytes == (sum(base.states.bytes_per_slot.values()) if base.states else 0)
    weights = sum(p.nbytes for p in family.module("base").parameters())
    placement = Placement.of(EngineConfig(device="cpu"))
    assert sizes.nbytes(placement) == pytest.approx(weights, rel=0.001)  # buffers may be saved too


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gpt_oss", "llama"])
def test_the_comparison_detects_a_wrong_window_or_position(kind, tmp_path, monkeypatch):
    family = build(tmp_path, kind, SUPPORTED[kind])
    engine = open_engine(family)
    try:
        if "sliding_window" in SUPPORTED[kind]:  # one position too many
            for module, name in ((paged, "attend_in_place"), (plan, "add_attention")):
                monkeypatch.setattr(module, name, partial(_widened, getattr(module, name)))
        else:  # distances twice as long
            monkeypatch.setattr("langchain_eft.engine.rounds.model_pass.pack", _stretched)
        recorders = decode(engine, 0)
    finally:
        engine.close()
    pairs = zip(PROMPTS, recorders, strict=True)
    assert max(deviation(family, prompt, recorder) for prompt, recorder in pairs) > 0.02


def _widened(attend, *args, sliding_window, **features):
    attend(*args, sliding_window=sliding_window and sliding_window + 1, **features)


def _stretched(*args):
    batch = packing.pack(*args)
    batch.positions[:] *= 2
    return batch


@pytest.mark.parametrize("kind", REFUSED)
def test_an_unsupported_family_is_refused_with_the_reason(kind, tmp_path):
    require(kind)
    extra, reason = REFUSED[kind]
    configuration(kind, extra).save_pretrained(tmp_path)  # most are refused before their weights are read
    if kind in REFUSED_AFTER_LOADING:
        AutoModelForCausalLM.from_config(configuration(kind, extra)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=reason) as error:
        Engine(Recipe(base=str(tmp_path)))
    assert str(tmp_path) in str(error.value)
    assert f"({kind})" in str(error.value)


@pytest.mark.parametrize("error", [KeyError("position"), StopIteration(), AssertionError()])
def test_whatever_a_model_raises_is_a_reason_to_refuse_it(family, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(self_check, "plain_logits", fail)
    with pytest.raises(UnsupportedModelError, match=f"base.*{type(error).__name__}") as refusal:
        Engine(family.recipe, EngineConfig(kv_cache_tokens=64))
    assert refusal.value.__cause__ is error


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_would_be_run_wrongly_is_refused_in_every_precision(family, monkeypatch, dtype):
    config = EngineConfig(dtype=dtype, kv_cache_tokens=64)
    Engine(family.recipe, config).close()
    monkeypatch.setattr(self_check, "pack", _stretched)
    with pytest.raises(UnsupportedModelError, match="logits differ"):
        Engine(family.recipe, config)


@pytest.mark.parametrize(("error", "agrees"), [(0.05, True), (0.18, False)])
def test_rounding_refuses_no_model_with_many_tokens(error, agrees):
    """Of 128,256 small errors some are large. Errors of 0.18 deviations are those of wrong positions."""
    torch.manual_seed(0)
    expected = 3 * torch.randn(128_256)
    logits = (expected + 3 * error * torch.randn(128_256) + 1).bfloat16()
    assert self_check.agree(logits, expected.bfloat16(), torch.bfloat16) is agrees


def test_a_soft_cap_on_the_logits_is_seen_in_every_precision():
    """Gemma 2's cap changes small logits less than bfloat16 does, and large ones by much."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        output, head = torch.randn(1, 64, dtype=dtype), torch.randn(4096, 64, dtype=dtype) / 2
        logits = (output @ head.t())[0]
        capped = 30 * torch.tanh(logits.float() / 30).to(dtype)
        assert self_check._is_head(head, output, logits, dtype)
        assert not self_check._is_head(head, output, capped, dtype)


def test_the_docs_list_exactly_these_families():
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    supported, refused = page.split("## Families")[1].split("## Presets")[0].split("Refused, with")
    assert set(re.findall(r"`([a-z]\w+)`", supported.split("| --- |")[1])) == set(SUPPORTED)
    assert {name for name in re.findall(r"`([a-z]\w+)`", refused) if name in REFUSED} == set(REFUSED)


def test_the_window_is_limited_if_frequencies_depend_on_the_batch(tmp_path):
    factors = {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "original_max_position_embeddings": 40}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    extra = {**GROUPED, "rope_parameters": rope, "original_max_position_embeddings": 40}
    save(AutoModelForCausalLM.from_config(configuration("phi3", extra)), tmp_path)
    engine = Engine(Recipe(base=str(tmp_path)), EngineConfig(kv_cache_tokens=512))
    try:
        assert engine.window == EFTChatModel(model=str(tmp_path)).profile["max_input_tokens"] == 40
    finally:
        engine.close()
