"""From a recipe to the folder that vLLM serves, and the line that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.tokenizers import RecipeTokenizers, read_tokenizers
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export.command import ServeOptions, serve_line
from langchain_eft.vllm.export.describe import describe_recipe
from langchain_eft.vllm.export.draft import DraftModel
from langchain_eft.vllm.export.exported_models import ExportedModels
from langchain_eft.vllm.export.folder import WrittenFolder, draft_subfolder, refuse_used, write_folder
from langchain_eft.vllm.section import EFTSection


@dataclass(frozen=True)
class Export:
    """A recipe that vLLM can serve.

    Attributes:
        line: The line that starts vLLM.
        section: What the plugin is told.
        written: What was written.
    """

    line: str
    section: EFTSection
    written: WrittenFolder


def export_recipe(
    recipe: Recipe,
    mixture: Mixture,
    folder: Path,
    options: ServeOptions | None = None,
    draft: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Prepare a recipe for vLLM. Models that are not on this machine are fetched.

    Args:
        recipe: What to serve.
        mixture: The mixture of requests that name none.
        folder: A new or empty folder, which appears by one rename, whole or not at all.
        options: How vLLM is to use the machine.
        draft: Behavior whose tuned model drafts, or None.
        progress: Receives a few words about each step.

    Raises:
        CheckpointNotFoundError: A model or adapter cannot be found, or is damaged.
        ExportError: The folder is not empty, or cannot be written.
        InsufficientDiskError: The files do not fit on the disk.
        RecipeError: The models cannot be combined, or vLLM cannot serve them.
        UnsupportedModelError: The base's config.json names no architecture.
    """
    refuse_used(folder)
    options = options or ServeOptions()
    models = ExportedModels.fetch(recipe, progress)
    options.check(models)
    progress("Comparing vocabularies")
    tokenizers = read_tokenizers(recipe, models.checkpoints)
    section = describe_recipe(recipe, mixture, models, tokenizers)
    drafting = None if draft is None else DraftModel.of(models, draft)
    folder = folder.absolute()  # the line may be used from anywhere
    _refuse_several_templates(tokenizers)
    written = write_folder(folder, models, tokenizers, section, drafting, progress)
    path = None if drafting is None else folder / draft_subfolder(drafting)
    return Export(serve_line(folder, options, path), section, written)


def _refuse_several_templates(tokenizers: RecipeTokenizers) -> None:
    template = tokenizers.base.chat_template
    if template is not None and not isinstance(template, str):
        raise RecipeError(
            f"The tokenizer has several chat templates ({', '.join(template)}), and vLLM takes one: give it "
            "with --chat-template FILE."
        )
