"""A device without numbers: `meta` tensors stand for a GPU, to see what rounds would do on one.

Operations that mix devices or ask the device for a value fail. Kernels are not launched; their arguments and
grids are checked.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig

from langchain_eft.engine import device_kernels
from langchain_eft.engine.attention import paged
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.decoding.sampling import Filters
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel, project
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.lora import LoraAdapter, LoraUpdate
from langchain_eft.engine.recurrence.state_pool import StatePool
from langchain_eft.engine.rounds.round import Round
from langchain_eft.engine.rounds.shape import RoundShape, common_shapes
from langchain_eft.engine.rounds.shared import Shared

META = torch.device("meta")
KERNELS = (
    "attention.triton",
    "decoding.triton",
    "decoding.nucleus_triton",
    "models.triton",
    "rounds.layout_triton",
    "rounds.progress_triton",
)
ASKING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "repeat_interleave.Tensor",
    "unique",
    "equal.default",
)
VOCABULARY = 263
BLOCKS, BLOCK_SIZE, ROWS = 64, 16, 16

EXTRAS = (
    {},
    {"grammar": True},
    {"penalties": True, "biases": 2},
    {"logprobs": True},
    {"max_context": 4096},
    {"conservative": True, "nucleus": True},
    {"gates": 2},
    {"scheduled": True},
    {"filters": Filters(greedy=True, sampled=True, top_k=8, top_p=True, min_p=True)},
)
"""What else a round may do."""


class OneDevice(TorchDispatchMode):
    """Fails on operations that read a value of the device, or take tensors of another one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        assert all(x.device == META or not x.dim() for x in tensors), f"{func} mixes devices"
        assert not any(word in str(func) for word in ASKING), f"{func} asks the device for a value"
        return func(*args, **(kwargs or {}))


def kernels():
    """All kernels of the engine, and the functions that they call."""
    modules = [importlib.import_module(f"langchain_eft.engine.{name}") for name in KERNELS]
    kinds = {"JITFunction", "InterpretedFunction"}
    return [each for module in modules for each in vars(module).values() if type(each).__name__ in kinds]


def check_launch(arguments, grid):
    """A launch takes tensors of the device alone, and a grid that CUDA takes."""
    assert all(x.device == META for x in arguments if isinstance(x, torch.Tensor)), "the launch mixes devices"
    assert all(size > 0 for size in grid), grid
    assert all(size < 2**16 for size in grid[1:]), grid


class LaunchCounter(TorchDispatchMode):
    """Counts operations that launch something: all but views, and memory that is not filled.

    Attributes:
        count: How many so far. A torch operation counts once, though it may launch several kernels.
    """

    def __init__(self):
        super().__init__()
        self.count, self._paused = 0, False

    @contextmanager
    def paused(self):
        self._paused = True
        yield
        self._paused = False

    def launch(self, run, *args, **kwargs):
        self.count += not self._paused

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = [each.alias_info for each in func._schema.returns]
        is_view = any(info is not None and not info.is_write for info in returned)
        empty = func._schema.name.startswith(("aten::empty", "aten::new_empty"))
        self.count += not (is_view or empty or self._paused)
        return func(*args, **(kwargs or {}))


def count_launches(shape: RoundShape) -> tuple[int, int]:
    """Launches of the two halves of a round, besides those of the models' layers."""
    counter, run_layers = LaunchCounter(), CausalModel.__call__

    def without_layers(model, *args, **kwargs):
        with counter.paused():
            return run_layers(model, *args, **kwargs)

    with meta_device(launch=counter.launch), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalModel, "__call__", without_layers)
        round_ = Round(shape, meta_shared(meta_family()))
        with counter:
            if shape.drafting:
                round_.draft()
            drafted = counter.count
            round_.verify()
    return drafted, counter.count - drafted


@contextmanager
def meta_device(*, launch=None) -> Iterator[None]:
    """Engines believe that kernels run on `meta`.

    Args:
        launch: Called with a kernel's own `run` and the arguments of a launch; None launches nothing.
    """
    from langchain_eft.engine.attention import triton as attention_kernels

    with pytest.MonkeyPatch.context() as patch:
        for module in (device_kernels, paged):
            patch.setattr(module, "has_kernel", lambda device: True)
        patch.setattr(attention_kernels, "_processors", lambda device: 132)
        for kernel in kernels():
            patch.setattr(kernel, "run", _checked(kernel.run, launch))
        yield


def _checked(run, launch):
    def checked(*args, grid, warmup, **kwargs):
        check_launch((*args, *kwargs.values()), grid)
        if launch is not None:
            launch(run, *args, grid=grid, **kwargs)

    return checked


def meta_family() -> ModelFamily:
    """A base, a reference with two adapters, and a tuned model, with fused layers in bfloat16."""
    from langchain_eft.engine.models.fusion import fuse

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    models = []
    for name, count in (("base", 0), ("reference", 2), ("tuned", 0)):
        with META:
            module = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation=ATTENTION
            )
        module.eval().requires_grad_(requires_grad=False)
        adapters = [_adapter(module)] * count
        assert fuse(module)
        models.append(CausalModel(name, module, adapters))
        models[-1].head = module.lm_head.weight
    ids = torch.ones(VOCABULARY, dtype=torch.bool, device=META)
    behaviors = {"full": (Term(2), Term(1)), "a": (Term(1, 1), Term(1)), "b": (Term(1, 2), Term(1))}
    return ModelFamily(
        models=tuple(models), base=Term(0), behaviors=behaviors, tokenizer=None, vocabulary=ids, unscaled=ids,
        end_ids=frozenset({1}), window=4096, weight_bytes=1, sizes=(4, 1, 1), leader=None,
    )  # fmt: skip


def _adapter(module) -> LoraAdapter:
    def empty(*shape):
        return torch.empty(shape, dtype=torch.bfloat16, device=META)

    layers = {n: m for n, m in module.named_modules() if n.endswith(("q_proj", "down_proj"))}
    updates = {n: LoraUpdate(empty(8, m.in_features), empty(m.out_features, 8)) for n, m in layers.items()}
    return LoraAdapter("", updates)


def meta_shared(family: ModelFamily) -> Shared:
    pools = [KVPool(model.variants * BLOCKS * BLOCK_SIZE) for model in family.models]
    states = [StatePool(ROWS, model.variants) if model.states else None for model in family.models]
    return Shared(family, pools, states, BLOCKS, BLOCK_SIZE, ROWS, host_may_look=False)


def kinds_of_rounds(family: ModelFamily, rows: int) -> list[RoundShape]:
    """Every common shape with everything else that a round may do."""
    return [replace(shape, **extra) for shape in common_shapes(family, rows) for extra in EXTRAS]


def run_round(shape: RoundShape, shared: Shared) -> None:
    """Both halves of a round, as a recording would run them."""
    round_ = Round(shape, shared)
    with OneDevice():
        if shape.drafting:
            round_.draft()
        round_.verify()


def run_prompts(shared: Shared, lengths=(3, 200)) -> None:
    """The passes of a round that computes chunks of prompts, beside rows that decode."""
    hidden = []
    for model, pool in zip(shared.family.models, shared.pools, strict=True):
        variants = range(model.variants)
        chunks = [
            Chunk([5] * length, 0, variant, list(range(BLOCKS))) for length in lengths for variant in variants
        ]
        batch = pack(chunks, pool, BLOCK_SIZE, META)
        keep = torch.zeros(2, dtype=torch.int64, device=META)
        with OneDevice():
            hidden.append((model.head, model(batch, variants, keep)))
    with OneDevice():
        project(hidden, VOCABULARY, META)
