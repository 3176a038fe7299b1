"""Loading a recipe: every model once, its size checked before anything is fetched or read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from langchain_eft.behaviors import BehaviorDelta, ModelSource, Recipe, read_template
from langchain_eft.engine import vocabulary
from langchain_eft.engine.adapters import LoraAdapter, load_adapter, read_adapter_config
from langchain_eft.engine.attention import ATTENTION, has_kernel
from langchain_eft.engine.checkpoints import Located, Progress, locate, quiet_transformers, resolve
from langchain_eft.engine.compatibility import longest_exact, reason_against
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, UnsupportedModelError
from langchain_eft.engine.memory import (
    WeightCount,
    count_weights,
    free_memory,
    free_memory_everywhere,
    require_memory,
)
from langchain_eft.engine.models import (
    CausalModel,
    ModelFamily,
    Term,
    drop_weights,
    prepare,
    text_config,
    unsupported,
)
from langchain_eft.engine.placement import Placement, distinct
from langchain_eft.engine.quantization import quantize, while_reading

if TYPE_CHECKING:
    from langchain_eft.engine.tensor_parallel import Leader


def load_family(recipe: Recipe, placement: Placement, progress: Progress) -> ModelFamily:
    """Load every distinct model of a recipe once.

    Raises:
        CheckpointNotFoundError: A model or adapter cannot be found.
        InsufficientMemoryError: Weights that do not fit the devices.
        InsufficientDiskError: Weights that do not fit the disk.
        RecipeError: Models that cannot be combined, or placed as asked for.
        UnsupportedModelError: A model whose decoding here would not equal its own forward.
    """
    layout = Layout.of(recipe, lambda adapter: Path(resolve(adapter, progress)))
    layout.check(placement)
    layout.require_memory(placement)
    layout = layout.fetched(progress)
    layout.require_memory(placement)  # converted files show their size only now
    loader = _Loader(layout, placement, progress)
    try:
        return _load(recipe, layout, loader, placement.device, progress)
    except BaseException:
        loader.close()
        raise


def _load(
    recipe: Recipe, layout: Layout, loader: _Loader, device: torch.device, progress: Progress
) -> ModelFamily:
    with ThreadPoolExecutor(1) as pool:  # tokenizers load without holding the interpreter
        waiting = pool.submit(_tokenizers, recipe, layout)
        loader.module(layout.base)
        tokenizers = waiting.result()
    for pair in layout.pairs.values():
        loader.module(pair.reference)
        loader.module(pair.tuned)
    progress("Checking the models")
    models = loader.models(tokenizers.main)
    index = {model.name: i for i, model in enumerate(models)}
    tokens = _Tokens.of(recipe, layout, tokenizers, loader)
    size = min(int(text_config(model.module).vocab_size) for model in models)
    return ModelFamily(
        models=tuple(models),
        base=Term(index[layout.base.folder], context=recipe.base_text),
        behaviors={
            name: layout.terms(name, recipe, lambda place: index[place.folder]) for name in layout.pairs
        },
        tokenizer=tokenizers.main,
        vocabulary=_mask(tokens.common, size).to(device),
        unscaled=_mask(tokens.unscaled, size).to(device) if tokens.unscaled else None,
        end_ids=tokens.end,
        window=min(longest_exact(text_config(model.module)) for model in models),
        weight_bytes=_bytes(model.module for model in models),
        sizes=tuple(_bytes([model.module]) for model in models),
        leader=loader.leader,
    )


def _bytes(modules: Iterable[nn.Module]) -> int:
    tensors = distinct(t for module in modules for t in (*module.parameters(), *module.buffers()))
    return sum(tensor.nbytes for tensor in tensors.values())


def _mask(ids: Iterable[int], size: int) -> Tensor:
    """[size] bool."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[i for i in ids if i < size]] = True
    return mask


# Where everything is


@dataclass(frozen=True)
class Pair:
    """F and S of a behaviour; an adapter's F is its reference.

    Attributes:
        tuned: F, or what its adapter is added to.
        reference: S.
        adapter: Folder of the adapter, or None.
    """

    tuned: Located
    reference: Located
    adapter: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Where the models of a recipe are.

    Attributes:
        base: The large model.
        pairs: The behaviours.
    """

    base: Located
    pairs: dict[str, Pair]

    @classmethod
    def of(cls, recipe: Recipe, fetch: Callable[[str], Path]) -> Layout:
        """Find everything.

        Args:
            recipe: Which models.
            fetch: Gives the folder of an adapter, of which only the configuration is read here.

        Raises:
            CheckpointNotFoundError: Something cannot be found.
            RecipeError: A behaviour without a reference.
        """
        find = cache(locate)

        def pair(name: str, delta: BehaviorDelta) -> Pair:
            if delta.adapter is not None:
                adapter = fetch(delta.adapter)
                reference = find(delta.reference or _trained_on(adapter))
                return Pair(reference, reference, adapter)
            if delta.tuned is None:
                small = find(delta.reference or recipe.base)
                return Pair(small, small)
            if delta.reference is None:
                raise RecipeError(
                    f"Behaviour {name!r} has tuned={str(delta.tuned)!r} and no reference: name the small "
                    "model before fine-tuning with `reference=`."
                )
            return Pair(find(delta.tuned), find(delta.reference))

        return cls(find(recipe.base), {name: pair(name, delta) for name, delta in recipe.behaviors.items()})

    @property
    def places(self) -> list[Located]:
        """Every model once, the base first."""
        small = (place for pair in self.pairs.values() for place in (pair.reference, pair.tuned))
        return list(dict.fromkeys([self.base, *small]))

    def fetched(self, progress: Progress) -> Layout:
        """The same once everything is on this machine."""
        here = {place: Located(place.name, Path(place.fetch(progress))) for place in self.places}
        pairs = {n: Pair(here[p.tuned], here[p.reference], p.adapter) for n, p in self.pairs.items()}
        return Layout(here[self.base], pairs)

    def check(self, placement: Placement) -> None:
        """Refuse a placement of the base that a behaviour rules out.

        Raises:
            RecipeError: The base is a small model of some behaviour too, and quantised or divided.
        """
        for name, pair in self.pairs.items():
            if self.base not in (pair.tuned, pair.reference):
                continue
            if placement.quantization and pair.tuned != pair.reference:
                raise RecipeError(
                    f"quantization={placement.quantization!r} is for the large base, which is also a "
                    "small model "
                    f"of behaviour {name!r}, whose log-ratio would amplify the rounding: leave it out, "
                    "or use another base."
                )
            if pair.adapter and (placement.ranks > 1 or placement.device_map or placement.quantization):
                raise RecipeError(
                    f"The base {self.base.name!r} is also the reference of the adapter of behaviour "
                    f"{name!r}, and "
                    "those cannot be divided or quantised with it: leave `tensor_parallel`, `device_map` and "
                    "`quantization` at their defaults."
                )

    def require_memory(self, placement: Placement) -> None:
        """Refuse models that do not fit together, as far as their sizes are known.

        Raises:
            InsufficientMemoryError: With what is needed and what is free.
        """
        needs: dict[torch.device, dict[str, int]] = {}
        for place in self.places:
            where = placement if place == self.base else placement.small
            count = weight_count(place)
            if count is not None:
                size = count.nbytes(where.dtype, where.quantization) // where.ranks
                needs.setdefault(where.device, {})[place.name] = size
        for device, sizes in needs.items():
            spread = device == placement.device and placement.device_map is not None
            require_memory(
                sizes, free_memory_everywhere(device) if spread else free_memory(device), str(device)
            )

    def adapters(self, reference: Located) -> list[Path]:
        """Adapters of a model, each once, in a fixed order."""
        found = (pair.adapter for pair in self.pairs.values() if pair.reference == reference)
        return list(dict.fromkeys(adapter for adapter in found if adapter is not None))

    def terms(self, behavior: str, recipe: Recipe, index: Callable[[Located], int]) -> tuple[Term, Term]:
        """F and S of a behaviour as terms; the i-th adapter of a model is its i-th variant.

        Args:
            behavior: Its name.
            recipe: Says what they read.
            index: Numbers models.
        """
        pair, (tuned, reference) = self.pairs[behavior], recipe.texts(behavior)
        variant = 0 if pair.adapter is None else self.adapters(pair.reference).index(pair.adapter) + 1
        return (
            Term(index(pair.tuned), variant, tuned),
            Term(index(pair.reference), context=reference),
        )


def _trained_on(adapter: Path) -> ModelSource:
    source = str(read_adapter_config(adapter).get("base_model_name_or_path") or "")
    beside = (adapter / source).resolve()
    if not source:
        raise RecipeError(
            f"The adapter {str(adapter)!r} does not say which model it was trained on: name it with "
            "`reference=`."
        )
    return str(beside) if beside.is_dir() else source


def weight_count(place: Located) -> WeightCount | None:
    """How many weights a model has, as far as headers of its files, or the hub, tell; else None."""
    if place.path is not None:
        return count_weights(place.path) if place.path.is_dir() else None
    known = place.known
    if known is None:
        return None
    packed = known.parameters is not None and known.weight_bytes < 2 * known.parameters
    if known.parameters is None or packed:  # quantised already
        return WeightCount(0, 0, stored=known.weight_bytes)
    return WeightCount(known.parameters, 0)


# Weights


class _Loader:
    """Loads each folder once; the first model lends its embeddings to those that were saved without."""

    def __init__(self, layout: Layout, placement: Placement, progress: Progress) -> None:
        self._layout, self._placement, self._progress = layout, placement, progress
        self.leader: Leader | None = None
        self.modules: dict[str, Any] = {}

    def module(self, place: Located) -> None:
        """Load a model unless it is loaded."""
        folder = place.folder
        if folder in self.modules:
            return
        self._progress(f"Loading {Path(folder).name}")
        placement = self._placement if place == self._layout.base else self._placement.small
        if placement.ranks > 1:
            from langchain_eft.engine.tensor_parallel import Leader

            self.leader = Leader(folder, placement)
        lender = next(iter(self.modules.values()), None)
        self.modules[folder] = load_module(folder, placement, lender)
        if placement.ranks > 1 and self.leader:
            self.leader.attach(self.modules[folder])

    def close(self) -> None:
        """Let go of the weights, and stop the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()
        for module in self.modules.values():
            drop_weights(module)

    def models(self, tokenizer: Any) -> list[CausalModel]:
        """All models, checked, with their adapters stacked."""
        adapters = {place.folder: self._layout.adapters(place) for place in self._layout.places}
        return [
            prepare(folder, module, self._load_adapters(module, adapters[folder]), tokenizer)
            for folder, module in self.modules.items()
        ]

    def _load_adapters(self, module: nn.Module, adapters: Sequence[Path]) -> list[LoraAdapter]:
        device = next(module.parameters()).device
        return [load_adapter(adapter, self._placement.dtype, device) for adapter in adapters]


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
        config = AutoConfig.from_pretrained(path)
        reason = reason_against(config.get_text_config())
        if reason:
            raise unsupported(path, config, reason)
        packed = getattr(config, "quantization_config", None) is not None
        with quiet_transformers(), _NoRandomInit():
            module, report = AutoModelForCausalLM.from_pretrained(
                path,
                attn_implementation=ATTENTION,
                output_loading_info=True,
                **_loading(placement, packed=packed),
            )
    except KeyError as error:
        if error.args != (ATTENTION,):
            raise
        raise unsupported(path, config, "it has no attention that could be replaced") from error
    except (OSError, ValueError, ImportError) as error:
        kind = UnsupportedModelError if "attn" in str(error) else CheckpointNotFoundError
        raise kind(f"{path!r} cannot be loaded as a causal language model: {error}") from error
    missing = set(report["missing_keys"])
    if missing:
        _lend_embeddings(path, module, missing, lender, placement.device)
    module.eval().requires_grad_(requires_grad=False)
    if placement.ranks > 1 or packed or while_reading(placement.quantization, placement.dtype):
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


def _loading(placement: Placement, *, packed: bool) -> dict[str, Any]:
    """Keywords of `from_pretrained`.

    Args:
        placement: Where the model runs, and in what numbers.
        packed: Whether the checkpoint is quantised already.
    """
    if placement.ranks > 1:
        from transformers.distributed import DistributedConfig

        return {"dtype": placement.dtype, "distributed_config": DistributedConfig(tp_size=placement.ranks)}
    quantization = while_reading(placement.quantization, placement.dtype)
    if quantization or packed:
        device_map = placement.device_map or {"": placement.device}
        settings = {"quantization_config": quantization} if quantization else {}
        return {"dtype": placement.dtype, "device_map": device_map, **settings}
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


# Tokenizers


@dataclass(frozen=True)
class _Tokenizers:
    """The tokenizers of a recipe.

    Attributes:
        main: The base's, with the template that conversations are rendered with.
        tuned: Of each behaviour with weights of its own, F's, or None where it brings none.
        small: Names and tokenizers of the small models that have one.
    """

    main: Any
    tuned: dict[str, Any]
    small: list[tuple[str, Any]]


def _tokenizers(recipe: Recipe, layout: Layout) -> _Tokenizers:
    read = cache(_read_tokenizer)
    main = read(layout.base)
    if main is None:
        raise CheckpointNotFoundError(
            f"{layout.base.name!r} holds no tokenizer that transformers can load: add its tokenizer.json."
        )
    tuned = {}
    for name, delta in recipe.behaviors.items():
        pair = layout.pairs[name]
        if pair.adapter is not None:
            tuned[name] = read(Located(str(pair.adapter), pair.adapter))
        elif delta.has_weights:
            tuned[name] = read(pair.tuned)
    small = [(place.name, found) for place in layout.places[1:] if (found := read(place)) is not None]
    main.chat_template = _template(recipe, main, tuned)
    return _Tokenizers(main, tuned, small)


def _template(recipe: Recipe, main: Any, tuned: dict[str, Any]) -> Any:
    """The recipe's own template, or that of the first tuned model that has one, or the base's, or for it."""
    if recipe.chat_template is not None:
        return recipe.chat_template.read_text(encoding="utf-8")
    own = (t.chat_template for t in tuned.values() if t is not None and t.chat_template)
    plain = None if recipe.base_template is None else read_template(recipe.base_template)
    return next(own, main.chat_template or plain)


def _read_tokenizer(place: Located) -> Any:
    """A model's tokenizer, or None where it has none; of a hub model nothing else is fetched."""
    if place.path is not None and place.path.is_dir():
        names = ("tokenizer_config.json", "tokenizer.json")
        return (
            AutoTokenizer.from_pretrained(place.path)
            if any((place.path / n).is_file() for n in names)
            else None
        )
    if place.hub is None or place.hub.is_gguf:
        return AutoTokenizer.from_pretrained(place.fetch(lambda _: None))
    try:
        return AutoTokenizer.from_pretrained(
            place.hub.repo, revision=place.hub.revision, subfolder=place.hub.path
        )
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)
def load_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer of a recipe's base, with the template of its conversations; no weights are loaded.

    Raises:
        CheckpointNotFoundError: A model cannot be found.
    """
    return _tokenizers(recipe, Layout.of(recipe, lambda a: Path(resolve(a, lambda _: None)))).main


@dataclass(frozen=True)
class _Tokens:
    """What ids mean in a recipe: `common` in all models, `end` of answers, `unscaled` by L / S."""

    common: frozenset[int]
    end: frozenset[int]
    unscaled: frozenset[int]

    @classmethod
    def of(cls, recipe: Recipe, layout: Layout, tokenizers: _Tokenizers, loader: _Loader) -> _Tokens:
        main = tokenizers.main
        common = vocabulary.common_ids(main, tokenizers.small, layout.base.name)
        base_stops = _stops(loader.modules[layout.base.folder], main)
        speakers = []
        for name, own in tokenizers.tuned.items():
            pair = layout.pairs[name]
            if pair.tuned == layout.base:
                continue
            module = None if pair.adapter else loader.modules[pair.tuned.folder]
            spoken = own if own is not None and own.chat_template and not recipe.chat_template else main
            speakers.append(vocabulary.Speaker(name, vocabulary.turns(spoken), _stops(module, own)))
        named = recipe.unscaled_tokens
        # Reading a transcript, the base knows nothing of turns, whatever it ends its own texts with.
        known_stops = () if recipe.base_template else base_stops
        return cls(
            common,
            vocabulary.end_ids(base_stops, speakers, common),
            vocabulary.unscaled_ids(known_stops, speakers, common)
            if named is None
            else vocabulary.ids_of(named, main) & common,
        )


def _stops(module: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text by a model's configuration and its tokenizer, as far as there are any."""
    configured = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    ids: Sequence[int | None] = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, getattr(tokenizer, "eos_token_id", None)] if i is not None)
