"""The models of a recipe: loaded once each, shared where they are equal, checked before use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from langchain_eft.behaviors import BehaviorDelta, ModelSource, Recipe
from langchain_eft.engine import vocabulary
from langchain_eft.engine.adapters import LoraAdapter, load_adapter, read_adapter_config
from langchain_eft.engine.attention import ATTENTION, ForwardBatch, Row, has_kernel, page
from langchain_eft.engine.checkpoints import Progress, quiet_transformers, resolve
from langchain_eft.engine.compatibility import (
    PROBE,
    LayerCall,
    longest_exact,
    reason_against,
    reason_against_layers,
)
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, UnsupportedModelError
from langchain_eft.engine.kv_cache import KVPool
from langchain_eft.engine.linear import VariantRouter, product, stack_adapters
from langchain_eft.engine.memory import require_memory_for
from langchain_eft.engine.placement import Placement, storages
from langchain_eft.engine.quantization import quantize

if TYPE_CHECKING:
    from langchain_eft.engine.tensor_parallel import Leader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Term:
    """One summand of the formula: a variant of one of the recipe's models, over one of a request's contexts.

    Attributes:
        model: Index into `ModelFamily.models`.
        variant: 0 for the model itself, i for its i-th adapter.
        context: Name of the prompt that it reads; empty for the request's main one.
    """

    model: int
    variant: int = 0
    context: str = ""


class CausalModel:
    """One set of weights with its adapters, run over packed rows.

    Attributes:
        name: Where the weights come from.
        module: The transformers model.
        variants: 1 + number of adapters.
        router: Tells the linear layers which adapter each token uses.
        device: Where its inputs are expected, and where its outputs are.
        head: [V, hidden] output matrix, where the logits are a plain product with it; else None.
        bytes_per_token: KV memory of one token of one variant, on each device.
    """

    def __init__(self, name: str, module: nn.Module, adapters: Sequence[LoraAdapter]) -> None:
        self.name = name
        self.module = module
        self.variants = 1 + len(adapters)
        self.head: Tensor | None = None
        self.bytes_per_token: dict[torch.device, int] = {}
        self.router = VariantRouter()
        self.device = next(module.parameters()).device
        self._add(adapters)

    def _add(self, adapters: Sequence[LoraAdapter]) -> None:
        try:
            stack_adapters(self.module, adapters, self.router)
        except KeyError as error:
            raise RecipeError(
                f"An adapter updates the layer {error.args[0]!r}, which is not a linear layer of "
                f"{self.name!r}: use the adapter with the model that it was trained on."
            ) from error

    @torch.inference_mode()
    def __call__(
        self, batch: ForwardBatch, active: Sequence[int], keep: Tensor | None = None, **extras: Any
    ) -> Tensor:
        """Run packed rows.

        Args:
            batch: N packed tokens.
            active: The distinct variants in the batch.
            keep: [n] int64, packed positions whose outputs are wanted; None for all.
            **extras: Further keywords of the attention function.

        Returns:
            [n, hidden] last hidden states if the model has a plain `head`, else [n, V] logits.
        """
        self.router.route(batch.variants, active)
        inputs = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "use_cache": False,
            "eft": batch,
            **extras,
        }
        if self.head is not None:
            hidden: Tensor = self.module.base_model(**inputs).last_hidden_state  # type: ignore[operator]
            return hidden[0] if keep is None else hidden[0, keep]
        logits: Tensor = self.module(**inputs, logits_to_keep=0 if keep is None else keep).logits
        return logits[0]


@dataclass(frozen=True)
class ModelFamily:
    """Everything that a recipe loads.

    Attributes:
        models: Distinct sets of weights.
        base: The term of the large model.
        behaviors: Terms (tuned, reference) of each behaviour.
        tokenizer: The base's tokenizer, with the recipe's chat template.
        vocabulary: [V] bool, ids that mean the same token everywhere.
        end_ids: Tokens that end an answer.
        window: Longest sequence that every model can hold.
        weight_bytes: Memory of all weights, shared tensors counted once.
        sizes: Bytes of weights that a pass over each of the models reads.
        leader: Of the processes that share the base, where several do.
    """

    models: tuple[CausalModel, ...]
    base: Term
    behaviors: dict[str, tuple[Term, Term]]
    tokenizer: Any
    vocabulary: Tensor
    end_ids: frozenset[int]
    window: int
    weight_bytes: int
    sizes: tuple[int, ...]
    leader: Leader | None

    def close(self) -> None:
        """Send home the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()

    def bytes_read(self, terms: Iterable[Term]) -> int:
        """Bytes of weights that one pass over `terms` reads; each model is read once."""
        return sum(self.sizes[model] for model in {term.model for term in terms})


def load_family(recipe: Recipe, placement: Placement, progress: Progress) -> ModelFamily:
    """Load every distinct model of a recipe once.

    Raises:
        CheckpointNotFoundError: A model or adapter cannot be found.
        InsufficientMemoryError: Weights that do not fit the device.
        RecipeError: Models that cannot be combined.
        UnsupportedModelError: A model whose decoding here would not equal its own forward.
    """
    base_path = resolve(recipe.base, progress)
    loader = _Loader(base_path, placement, progress)
    try:
        return _load(recipe, base_path, loader, placement.device, progress)
    except BaseException:
        loader.close()
        raise


def _load(
    recipe: Recipe, base_path: str, loader: _Loader, device: torch.device, progress: Progress
) -> ModelFamily:
    with ThreadPoolExecutor(1) as pool:  # tokenizers load without holding the interpreter
        tokenizer_future = pool.submit(_load_tokenizer, base_path, recipe.chat_template)
        loader.module(base_path)
        layout = {name: loader.locate(name, delta, recipe.base) for name, delta in recipe.behaviors.items()}
        tokenizer = tokenizer_future.result()
    for tuned, reference, _ in layout.values():
        loader.module(reference)
        loader.module(tuned)
    progress("Checking the models")
    models = loader.models(tokenizer)
    index = {model.name: i for i, model in enumerate(models)}
    behaviors = {
        name: (
            Term(index[tuned], loader.variant(tuned, adapter), name if recipe.behaviors[name].prompt else ""),
            Term(index[reference], context=name if recipe.behaviors[name].without else ""),
        )
        for name, (tuned, reference, adapter) in layout.items()
    }
    return ModelFamily(
        models=tuple(models),
        base=Term(index[base_path]),
        behaviors=behaviors,
        tokenizer=tokenizer,
        vocabulary=_common_vocabulary(models, tokenizer).to(device),
        end_ids=_end_ids(models[index[base_path]], tokenizer),
        window=min(longest_exact(_text_config(model)) for model in models),
        weight_bytes=_bytes(t for m in models for t in (*m.module.parameters(), *m.module.buffers())),
        sizes=tuple(_bytes(model.module.parameters()) for model in models),
        leader=loader.leader,
    )


class _Loader:
    """Loads each path once; the first model lends its embeddings to those that were saved without."""

    def __init__(self, base: str, placement: Placement, progress: Progress) -> None:
        self._base, self._placement, self._progress = base, placement, progress
        self.leader: Leader | None = None
        self._modules: dict[str, nn.Module] = {}
        self._adapters: dict[str, list[str]] = {}

    def locate(self, name: str, delta: BehaviorDelta, base: ModelSource) -> tuple[str, str, str | None]:
        """Paths of tuned model, reference and adapter; an adapter's tuned model is its reference."""
        if not delta.has_weights:
            path = resolve(delta.reference or base, self._progress)
            return path, path, None
        if delta.adapter is None:
            if delta.reference is None or delta.tuned is None:
                raise RecipeError(
                    f"Behaviour {name!r} has tuned={str(delta.tuned)!r} and no reference: name the small "
                    "model before fine-tuning with `reference=`."
                )
            return (
                resolve(delta.tuned, self._progress),
                resolve(delta.reference, self._progress),
                None,
            )
        adapter = resolve(delta.adapter, self._progress)
        reference = resolve(delta.reference or _trained_on(Path(adapter)), self._progress)
        self._adapters.setdefault(reference, [])
        if adapter not in self._adapters[reference]:
            self._adapters[reference].append(adapter)
        return reference, reference, adapter

    def variant(self, path: str, adapter: str | None) -> int:
        """Which variant of the model an adapter is."""
        return 0 if adapter is None else self._adapters[path].index(adapter) + 1

    def module(self, path: str) -> None:
        """Load the model at `path` unless it is loaded."""
        if path not in self._modules:
            self._progress(f"Loading {Path(path).name}")
            placement = self._placement if path == self._base else self._placement.small
            require_memory_for(path, placement)
            if placement.ranks > 1:
                from langchain_eft.engine.tensor_parallel import Leader

                self.leader = Leader(path, placement)
            lender = next(iter(self._modules.values()), None)
            self._modules[path] = load_module(path, placement, lender)
            if placement.ranks > 1 and self.leader:
                self.leader.attach(self._modules[path])

    def close(self) -> None:
        """Send home the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()

    def models(self, tokenizer: Any) -> list[CausalModel]:
        """All models, checked, with their adapters stacked."""
        return [
            prepare(
                path,
                module,
                self._load_adapters(path, module),
                tokenizer,
            )
            for path, module in self._modules.items()
        ]

    def _load_adapters(self, path: str, module: nn.Module) -> list[LoraAdapter]:
        adapters = self._adapters.get(path, ())
        if adapters and path == self._base and (self._placement.ranks > 1 or self._placement.device_map):
            raise RecipeError(
                f"The base {path!r} is also the reference of adapters, and those cannot be divided with it: "
                "leave `tensor_parallel` and `device_map` at their defaults."
            )
        device = next(module.parameters()).device
        return [load_adapter(Path(adapter), self._placement.dtype, device) for adapter in adapters]


def _trained_on(adapter: Path) -> ModelSource:
    source = str(read_adapter_config(adapter).get("base_model_name_or_path") or "")
    beside = (adapter / source).resolve()
    if not source:
        raise RecipeError(
            f"The adapter {str(adapter)!r} does not say which model it was trained on: name it with "
            "`reference=`."
        )
    return str(beside) if beside.is_dir() else source


class _NoRandomInit(TorchFunctionMode):
    """Skip drawing initial weights: what a checkpoint lacks is lent or refused, never random."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"normal_", "trunc_normal_", "uniform_"}:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_module(path: str, placement: Placement, lender: nn.Module | None) -> nn.Module:
    """Load one transformers model that attends over our KV pools.

    Args:
        path: Local folder.
        placement: Where it runs, and in what numbers.
        lender: Model whose embeddings (and output head) stand in for missing ones.

    Raises:
        CheckpointNotFoundError: transformers finds no model there.
        RecipeError: The checkpoint lacks weights that nothing can stand in for.
        UnsupportedModelError: The model's attention cannot be replaced.
    """
    try:
        config = AutoConfig.from_pretrained(path).get_text_config()
        reason = reason_against(config)
        if reason:
            raise _unsupported(path, config, reason)
        with quiet_transformers(), _NoRandomInit():
            module, report = AutoModelForCausalLM.from_pretrained(
                path,
                attn_implementation=ATTENTION,
                output_loading_info=True,
                **_loading(placement),
            )
    except KeyError as error:
        if error.args != (ATTENTION,):
            raise
        raise _unsupported(path, config, "it has no attention that could be replaced") from error
    except (OSError, ValueError) as error:
        kind = UnsupportedModelError if "attn" in str(error) else CheckpointNotFoundError
        raise kind(f"{path!r} cannot be loaded as a causal language model: {error}") from error
    missing = set(report["missing_keys"])
    if missing:
        _lend_embeddings(path, module, missing, lender, placement.device)
    module.eval().requires_grad_(requires_grad=False)
    if placement.ranks > 1:
        return module  # type: ignore[no-any-return]
    if placement.quantization:
        if has_kernel(placement.device):
            from langchain_eft.engine.fusion import fuse  # which needs Triton

            fuse(module)  # quantised weights cannot be joined
        quantize(module, placement.quantization, None if placement.device_map else placement.device)
    if placement.device_map:
        return module  # type: ignore[no-any-return]
    for parameter in module.parameters():
        # Packed integer weights keep their type, and quantised ones are where they belong.
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(placement.device, placement.dtype)
    return module.to(placement.device)  # type: ignore[no-any-return]


def _loading(placement: Placement) -> dict[str, Any]:
    """Keywords of `from_pretrained`."""
    if placement.ranks > 1:
        from transformers.distributed import DistributedConfig

        return {"dtype": placement.dtype, "distributed_config": DistributedConfig(tp_size=placement.ranks)}
    if placement.device_map:
        return {"dtype": placement.dtype, "device_map": placement.device_map}
    # Widening whole tensors afterwards is faster than while they are read.
    widened = placement.dtype == torch.float32 and not placement.quantization
    return {"dtype": "auto" if widened else placement.dtype}


def _lend_embeddings(
    path: str, module: Any, missing: set[str], lender: Any | None, device: torch.device
) -> None:
    embeddings, head = module.get_input_embeddings(), module.get_output_embeddings()
    shared = {name for name, m in module.named_modules() if m is embeddings or m is head}
    strangers = {key for key in missing if key.rpartition(".")[0] not in shared}
    if strangers or lender is None:
        raise RecipeError(f"The checkpoint {path!r} lacks weights: {sorted(strangers or missing)[:5]}.")
    lent = lender.get_input_embeddings()
    if lent.weight.shape != embeddings.weight.shape:
        raise RecipeError(
            f"The checkpoint {path!r} has no embeddings of its own and the base's have shape "
            f"{tuple(lent.weight.shape)} instead of {tuple(embeddings.weight.shape)}: use the base that it "
            "was made for."
        )
    head_lent = lender.get_output_embeddings()
    for layer, own in ((lent, embeddings), (head_lent, head)):
        if type(layer.weight) is not nn.Parameter:
            raise RecipeError(
                f"The checkpoint {path!r} has no embeddings of its own, and the base's are divided among "
                "processes: leave `tensor_parallel` at 1."
            )
        if layer.weight.device != device:  # a copy
            own.weight = nn.Parameter(layer.weight.to(device), requires_grad=False)
    if lent.weight.device == device:
        module.set_input_embeddings(lent)
        module.set_output_embeddings(head_lent)
    elif lent.weight is head_lent.weight:
        head.weight = embeddings.weight


@lru_cache(maxsize=8)
def load_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer of a recipe's base, with the recipe's chat template, and nothing else.

    Raises:
        CheckpointNotFoundError: The base cannot be found.
    """
    return _load_tokenizer(resolve(recipe.base, lambda _: None), recipe.chat_template)


def _load_tokenizer(path: str, chat_template: Path | None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path)
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text()
    return tokenizer


@dataclass(frozen=True)
class Chunk:
    """New tokens of one sequence for one variant.

    Attributes:
        tokens: Token ids.
        position: Position of the first of them.
        variant: Which variant they run through.
        blocks: The sequence's block table, shifted to the variant.
    """

    tokens: Sequence[int]
    position: int
    variant: int
    blocks: Sequence[int]


def pack(chunks: Sequence[Chunk], pool: KVPool, block_size: int, device: torch.device) -> ForwardBatch:
    """Lay chunks one after the other.

    Args:
        chunks: One for each row.
        pool: The model's KV memory.
        block_size: Positions per block.
        device: Where the batch goes.
    """
    rows: list[Row] = []
    ids: list[int] = []
    positions: list[int] = []
    variants: list[int] = []
    for chunk in chunks:
        end = chunk.position + len(chunk.tokens)
        rows.append(Row(len(ids), len(chunk.tokens), end, chunk.blocks[: -(-end // block_size)]))
        ids.extend(chunk.tokens)
        positions.extend(range(chunk.position, end))
        variants.extend([chunk.variant] * len(chunk.tokens))
    packed = torch.tensor([ids, positions, variants]).to(device)
    return ForwardBatch(
        ids=packed[0:1],
        positions=packed[1:2],
        variants=packed[2],
        pool=pool,
        block_size=block_size,
        rows=rows,
        paged=page(rows, block_size, device) if has_kernel(device) else (),
    )


def project(hidden: Sequence[tuple[Tensor | None, Tensor]], size: int, device: torch.device) -> Tensor:
    """Multiply by the output matrices, one product for all neighbours that share theirs.

    Args:
        hidden: Each model's head and its [n, hidden] states, or None and its [n, V] logits.
        size: Number of token ids that are wanted.
        device: Where the logits are wanted.

    Returns:
        [N, size] float32 logits of all models, one after the other.
    """
    logits: list[Tensor] = []
    shared: list[Tensor] = []
    for i, (head, states) in enumerate(hidden):
        following = hidden[i + 1][0] if i + 1 < len(hidden) else None
        if head is None:
            logits.append(states[:, :size].float())
            continue
        shared.append(states)
        if following is None or following.data_ptr() != head.data_ptr():
            logits.append(product(torch.cat(shared), head)[:, :size].float())
            shared.clear()
    return torch.cat([part.to(device) for part in logits])


_TOLERANCE = {torch.float32: 2e-3}
_PROBE = "The quick brown fox jumps over the lazy dog and runs."


@torch.inference_mode()
def prepare(name: str, module: nn.Module, adapters: Sequence[LoraAdapter], tokenizer: Any) -> CausalModel:
    """Make a loaded model ready for decoding, and check that this leaves its logits alone.

    Compares chunked decoding over our KV pool with the model's forward pass as it was loaded, variant 0. Also
    finds out whether the logits are a plain product with the output matrix, and how much KV memory a token
    takes.

    Raises:
        RecipeError: Adapters of another model.
        UnsupportedModelError: The two differ (recurrent state, ALiBi, shared KV and the like).
    """
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False).input_ids[:12]
    with _refusing(name, module):
        expected = plain_logits(module, torch.tensor([ids], device=next(module.parameters()).device))
    if has_kernel(expected.device):
        from langchain_eft.engine.fusion import fuse  # which needs Triton

        fuse(module)
    model = CausalModel(name, module, adapters)
    with _refusing(name, module):
        _self_check(model, ids, expected)
    return model


@contextmanager
def _refusing(name: str, module: Any) -> Iterator[None]:
    try:
        yield
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = f"it cannot be decoded row by row ({type(error).__name__}: {error})"
        raise _unsupported(name, module.config.get_text_config(), reason) from error


def _self_check(model: CausalModel, ids: list[int], expected: Tensor) -> None:
    half, pool, device = len(ids) // 2, KVPool(len(ids)), expected.device
    config = _text_config(model)
    seen: list[LayerCall] = []
    tolerance = _TOLERANCE.get(expected.dtype, 0.1) * float(expected.float().std() + 1)
    model.head = _output_matrix(model.module)
    first = _probe(model, pack([Chunk(ids[:half], 0, 0, [0])], pool, len(ids), device), seen)
    if not _is_head(model.head, first, expected[half - 1], tolerance):
        model.head = None  # soft-capped, scaled, biased or projected: the model makes its own logits
    last = _last_output(model, pack([Chunk(ids[half:], half, 0, [0])], pool, len(ids), device))
    reason = reason_against_layers(config, seen)
    if reason:
        raise _unsupported(model.name, config, reason)
    if not _agree(_logits(model, last), expected[-1], tolerance):
        raise _unsupported(model.name, config, "its logits differ from those of its own forward pass")
    model.bytes_per_token = pool.bytes_per_slot


def _unsupported(name: str, config: Any, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name!r} ({config.model_type}) cannot be decoded here: {reason}. Only models whose attention over "
        "keys and values is all that ties tokens together are supported: choose another model."
    )


def _probe(model: CausalModel, batch: ForwardBatch, seen: list[LayerCall]) -> Tensor:
    """`_last_output`, which also notes what the layers hand over."""
    module: Any = model.module
    module.set_attn_implementation(PROBE)
    try:
        return _last_output(model, batch, seen=seen)
    finally:
        module.set_attn_implementation(ATTENTION)


def own_logits(model: CausalModel, ids: Tensor, variant: int = 0) -> Tensor:
    """Logits of one variant without our attention. Nothing else may run on the model meanwhile.

    Args:
        model: Whose logits.
        ids: [1, T] int64 token ids.
        variant: 0 for the model itself, i for its i-th adapter.

    Returns:
        [T, V].
    """
    model.router.route(torch.full((ids.shape[1],), variant, device=model.device), [variant])
    return plain_logits(model.module, ids.to(model.device)).to(ids.device)


@torch.inference_mode()
def plain_logits(module: Any, ids: Tensor) -> Tensor:
    """Logits by transformers' attention, without cache: [1, T] int64 token ids to [T, V]."""
    module.set_attn_implementation("eager")
    try:
        logits: Tensor = module(input_ids=ids, use_cache=False).logits[0]
    finally:
        module.set_attn_implementation(ATTENTION)
    return logits


def _output_matrix(module: Any) -> Tensor | None:
    head = module.get_output_embeddings()
    # The hooks of layers that are spread over devices or processes would be left out.
    plain = type(head.weight) is nn.Parameter and not hasattr(head, "_hf_hook")
    return head.weight if plain and getattr(head, "bias", None) is None else None


def _is_head(head: Tensor | None, output: Tensor, expected: Tensor, tolerance: float) -> bool:
    if head is None or head.shape[-1] != output.shape[-1]:
        return False
    return _agree(product(output, head)[0], expected, tolerance)


def _last_output(model: CausalModel, batch: ForwardBatch, **extras: Any) -> Tensor:
    return model(batch, [0], torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device), **extras)


def _logits(model: CausalModel, output: Tensor) -> Tensor:
    return (output if model.head is None else product(output, model.head))[0]


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance)


def _common_vocabulary(models: Sequence[CausalModel], tokenizer: Any) -> Tensor:
    """Check the small models' tokenizers, where they have one, against the base's."""
    base, *small = models
    common = set(tokenizer.get_vocab().values())
    for model in small:
        if not (Path(model.name) / "tokenizer_config.json").is_file():
            continue
        report = vocabulary.compare(tokenizer, AutoTokenizer.from_pretrained(model.name))
        vocabulary.require_same_text(report, base.name, model.name)
        if report.special_differences:
            logger.warning("%s and %s: %s.", base.name, model.name, report.describe())
        common &= report.common
    size = min(int(model.module.config.vocab_size) for model in models)  # type: ignore[union-attr,arg-type]
    allowed = torch.zeros(size, dtype=torch.bool)
    allowed[[i for i in common if i < size]] = True
    return allowed


def _end_ids(base: CausalModel, tokenizer: Any) -> frozenset[int]:
    configured = getattr(base.module.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def _text_config(model: CausalModel) -> Any:
    config: Any = model.module.config
    return config.get_text_config()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({part.data_ptr(): part.nbytes for t in tensors for part in storages(t)}.values())
