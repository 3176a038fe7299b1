"""From a recipe to the section `eft` of config.json."""

from __future__ import annotations

from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.loading.tokenizers import RecipeTokenizers, TokenMeanings
from langchain_eft.engine.models.compatibility import is_hybrid
from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export.adapters import fitting_adapter
from langchain_eft.vllm.export.exported_models import ExportedModels, NamedModel
from langchain_eft.vllm.export.folder import subfolder
from langchain_eft.vllm.mixtures import refuse_gates
from langchain_eft.vllm.section import EFTSection, SmallModel, id_ranges


def describe_recipe(
    recipe: Recipe,
    mixture: Mixture,
    models: ExportedModels,
    tokenizers: RecipeTokenizers,
) -> EFTSection:
    """Describe a recipe for the plugin.

    Args:
        recipe: The recipe.
        mixture: The mixture of requests that name none.
        models: The models of the recipe.
        tokenizers: Their tokenizers.

    Raises:
        EngineError: A file cannot be read.
        RecipeError: A mixture that the recipe or vLLM cannot decode, or an adapter that does not fit its
            model.
        UnsupportedModelError: The base's config.json names no architecture, or a model has recurrent layers.
        VocabularyMismatchError: The ordinary tokens of two models differ.
    """
    recipe.check(mixture)
    refuse_gates(mixture.weights)
    tokens = TokenMeanings.compare(recipe, models.checkpoints, tokenizers)
    base = read_config(models.checkpoints.base)
    if not base.architectures:
        raise UnsupportedModelError(
            f"The config.json of {models.base.checkpoint.name!r} names no `architectures`, by which vLLM "
            "chooses the code of a model: save the model again with `save_pretrained`."
        )
    texts = [read_config(checkpoint).get_text_config() for checkpoint in models.checkpoints.unique]
    for checkpoint, text in zip(models.checkpoints.unique, texts, strict=True):
        if is_hybrid(text):
            raise UnsupportedModelError(
                f"{checkpoint.name!r} ({text.model_type}) has recurrent layers, whose states the plugin for "
                "vLLM does not keep apart: decode it with this package's own engine, or use another model."
            )
    size = min(int(text.vocab_size) for text in texts)

    def small_model(name: str, model: NamedModel) -> SmallModel:
        if model.adapter_of is None:
            return SmallModel(subfolder=subfolder(name))
        adapter = fitting_adapter(model.folder, models.whole[model.adapter_of].folder)
        return SmallModel(subfolder=subfolder(name), adapter_of=model.adapter_of, negated=adapter.negated)

    return EFTSection(
        base_name=models.base.checkpoint.name,
        base_architectures=tuple(base.architectures),
        models={name: small_model(name, model) for name, model in models.small.items()},
        behaviors=models.behaviors,
        mixture=mixture.weights,
        allow_negative_weights=recipe.allow_negative_weights,
        vocabulary_size=size,
        common=id_ranges(i for i in tokens.common if i < size),
        unscaled=tuple(sorted(i for i in tokens.unscaled if i < size)),
        end_ids=tuple(sorted(tokens.end)),
        window=min(context_window(text) for text in texts),
    )
