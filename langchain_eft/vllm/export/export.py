"""From a recipe to the line that serves it, by a folder or in place."""

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
from langchain_eft.vllm.export.folder import (
    WrittenFolder,
    draft_subfolder,
    in_folder,
    refuse_used,
    write_folder,
)
from langchain_eft.vllm.export.overrides import (
    base_arguments,
    in_place,
    section_arguments,
    template_arguments,
)
from langchain_eft.vllm.section import EFTSection


@dataclass(frozen=True)
class Export:
    """A recipe that vLLM can serve.

    Attributes:
        line: The line that starts vLLM.
        section: What the plugin is told.
        written: What was written; None for a recipe that is served in place.
    """

    line: str
    section: EFTSection
    written: WrittenFolder | None


def export_recipe(
    recipe: Recipe,
    mixture: Mixture,
    folder: Path | None,
    options: ServeOptions | None = None,
    draft: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Prepare a recipe for vLLM. Models that are not on this machine are fetched.

    Args:
        recipe: What to serve.
        mixture: The mixture of requests that name none.
        folder: A new or empty folder, which appears by one rename, whole or not at all. None writes nothing:
            the line then says all that vLLM has to know.
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
    if folder is not None:
        refuse_used(folder)
    options = options or ServeOptions()
    models = ExportedModels.fetch(recipe, progress)
    options.check(models)
    progress("Comparing vocabularies")
    tokenizers = read_tokenizers(recipe, models.checkpoints)
    section = describe_recipe(recipe, mixture, models, tokenizers, in_folder if folder else in_place)
    drafting = None if draft is None else DraftModel.of(models, draft)
    if folder is None:
        return _in_place(recipe, models, tokenizers, section, options, drafting)
    folder = folder.absolute()  # the line may be used from anywhere
    _single_template(tokenizers)
    written = write_folder(folder, models, tokenizers, section, drafting, progress)
    path = None if drafting is None else str(folder / draft_subfolder(drafting))
    line = serve_line(str(folder), options, path, ["--served-model-name", folder.name])
    return Export(line, section, written)


def _in_place(
    recipe: Recipe,
    models: ExportedModels,
    tokenizers: RecipeTokenizers,
    section: EFTSection,
    options: ServeOptions,
    draft: DraftModel | None,
) -> Export:
    base, *revision = base_arguments(models.base)
    template = template_arguments(recipe.chat_template, _single_template(tokenizers), models.base)
    arguments = [*revision, *template, *section_arguments(section)]
    return Export(
        serve_line(base, options, None if draft is None else _draft_in_place(draft), arguments), section, None
    )


def _single_template(tokenizers: RecipeTokenizers) -> str | None:
    """The chat template.

    Raises:
        RecipeError: There are several.
    """
    template = tokenizers.base.chat_template
    if template is None or isinstance(template, str):
        return template
    raise RecipeError(
        f"The tokenizer has several chat templates ({', '.join(template)}), and vLLM takes one: give it with "
        "--chat-template FILE."
    )


def _draft_in_place(draft: DraftModel) -> str:
    source = in_place(draft.name, draft.model)
    if not draft.is_whole:
        raise RecipeError(
            f"The draft model {draft.name!r} is an adapter, or was saved without embeddings, so vLLM cannot "
            "load it where it is: export the recipe to a folder."
        )
    return str(draft.model.folder) if source.get("subfolder") else str(source["source"])
