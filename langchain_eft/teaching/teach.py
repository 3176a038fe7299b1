"""Make a behavior: examples or a description, a LoRA on the small reference, a verdict, a folder."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.errors import langchain_errors
from langchain_eft.evaluation.hosted import hosted
from langchain_eft.teaching.arguments import check_name, check_source, check_style
from langchain_eft.teaching.behavior import TaughtBehavior
from langchain_eft.teaching.behavior_folder import WorkFolder, write_behavior
from langchain_eft.teaching.errors import require_extra
from langchain_eft.teaching.examples import Conversation, Example, Lesson, PreferencePair
from langchain_eft.teaching.model_card import model_card
from langchain_eft.teaching.settings import Settings
from langchain_eft.teaching.sources import read_lesson
from langchain_eft.teaching.sources.description import (
    QUESTIONS,
    ChatTeacher,
    SelfTeacher,
    describe_lesson,
)
from langchain_eft.teaching.tokens import Renderer
from langchain_eft.teaching.verdict import CAPITALS, judge_behavior

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.teaching.family import Family
    from langchain_eft.teaching.trainer import TrainingResult


def teach(
    name: str,
    source: str | Path | None = None,
    *,
    describe: str | None = None,
    teacher: BaseChatModel | str | None = None,
    questions: int = QUESTIONS,
    model: str = "smol",
    reference: str | None = None,
    chat_template: Path | None = None,
    folder: str | Path | None = None,
    settings: Settings | None = None,
    style: str | None = None,
    license: str | None = None,  # noqa: A002
    resume: bool = False,
    verdict: bool = True,
    capitals: int = CAPITALS,
    progress: Progress = silent,
) -> TaughtBehavior:
    r"""Make a behavior from examples or from a description. Only the small reference is trained.

    Args:
        name: Name of the behavior.
        source: A `.jsonl` file of conversations or pairs, or a data set on the hub or in a folder.
        describe: A system prompt, instead of a source. A teacher answers questions under it, and the adapter
            learns to answer so without it.
        teacher: Who answers: a chat model, or its name as PROVIDER:MODEL. The default is the model itself,
            with emphasis on the description.
        questions: How many questions the teacher answers.
        model: The large base: a preset, a hub id or a folder. It is not trained.
        reference: The small model that is trained. A preset has one.
        chat_template: A Jinja template instead of the models' own.
        folder: The behavior's folder, which must not exist. The default is `name` in the current folder.
        settings: How to train. What it leaves open follows from the number of examples.
        style: A regular expression that answers with the behavior match, such as `"Warm regards"`. Without
            it, the verdict goes by the implicit reward.
        license: License of the adapter. The default is the data set's, then the preset's.
        resume: Go on with a training that was stopped.
        verdict: Measure whether the behavior transfers to the base, and at which weight.
        capitals: How many capitals the verdict asks for.
        progress: Receives each step in a few words, with the time left of the training.

    Returns:
        The behavior in its folder.

    Raises:
        TeachingError: Arguments, examples or folders that cannot be used; a full disk.
        TeachingStoppedError: The user pressed Ctrl-C during the training. `resume` goes on.
        MissingExtraError: A package of the extra `teach` is not installed.
        EngineError: The models or the teacher cannot be found, loaded or combined.

    Example:
        ```python
        from langchain_eft.teaching import teach

        behavior = teach("house", "conversations.jsonl", progress=print)
        print(behavior.card.recommended_weight)
        ```
    """
    require_extra()
    settings = settings or Settings()
    check_name(name)
    check_source(source, describe, teacher)
    check_style(style)
    work = WorkFolder(Path(folder or name).expanduser().absolute())
    work.check(resume=resume)
    given = {} if source is None else {"lesson": read_lesson(str(source), settings.seed)}
    if isinstance(teacher, str):
        teacher = hosted(teacher, "`teacher` (--teacher)")
    from langchain_eft.teaching.family import find_family
    from langchain_eft.teaching.start_adapter import find_start

    family = find_family(model, reference, chat_template, progress)
    start = None
    if settings.start is not None:
        start, settings = find_start(settings, family.reference_hash, progress)
    identity = {
        "name": name,
        "data": given["lesson"].digest if given else f"{describe}, {questions} questions",
        "reference": family.reference_hash,
        "settings": settings.to_dict(),
    }
    work.begin(identity, resume=resume)
    lesson = given.get("lesson") or _described(
        family, str(describe), teacher, questions, work, settings.seed, progress
    )
    trained = _train(family, lesson, settings, start, work, progress)
    card = _card(name, family, lesson, license, trained)
    measured = None
    if verdict:
        llm = _candidate(card, family, trained, work.path / "candidate")
        with langchain_errors(), closing(llm.open_local(progress)):
            measured = judge_behavior(
                llm,
                name,
                lesson.held_out,
                trained.renderer,
                work.path / "verdict",
                style=style,
                progress=progress,
                capitals_asked=capitals,
            )
        card = card.model_copy(
            update={
                "measured": {**card.measured, "verdict": measured.to_dict()},
                "recommended_weight": measured.recommended_weight,
                "weight_range": measured.weight_range,
            }
        )
    readme = model_card(card, family.hub_base, measured)
    trained.write(work.final, card, family.reference_name, readme)
    work.end()
    return TaughtBehavior(work.final, card, measured)


def _described(
    family: Family,
    description: str,
    llm: BaseChatModel | None,
    questions: int,
    work: WorkFolder,
    seed: int,
    progress: Progress,
) -> Lesson:
    """The conversations of a teacher."""
    if llm is None:
        teacher: SelfTeacher | ChatTeacher = SelfTeacher(family.model, description, seed)
    else:
        teacher = ChatTeacher(llm, type(llm).__name__, description)
    try:
        return describe_lesson(description, teacher, work.answers, seed, progress, questions)
    finally:
        teacher.close()


@dataclass(frozen=True)
class _Trained:
    """What a training leaves: the adapter with its losses, the settings, and what wrote the conversations."""

    result: TrainingResult
    settings: Settings
    renderer: Renderer

    def write(self, folder: Path, card: BehaviorCard, reference: str, readme: str) -> None:
        """Write the folder of the behavior."""
        precision = self.settings.precision or "float32"
        write_behavior(folder, self.result.adapter, card, reference, readme, precision)


def _train(
    family: Family,
    lesson: Lesson,
    settings: Settings,
    start: Path | None,
    work: WorkFolder,
    progress: Progress,
) -> _Trained:
    """Train the adapter. The reference is freed at the end."""
    progress("Loading the trainer")
    import torch

    from langchain_eft.engine.models.window import context_window
    from langchain_eft.teaching.reference_model import load_reference
    from langchain_eft.teaching.trainer import train

    on_gpu = torch.cuda.is_available()
    half = on_gpu and settings.precision != "float32"
    reference = load_reference(
        family.reference_folder, family.base_folder, torch.bfloat16 if half else torch.float32
    )
    config = reference.config.get_text_config()
    renderer = Renderer(family.tokenizer, context_window(config))
    rows, held_out = (_rows(renderer, examples) for examples in (lesson.train, lesson.held_out))
    resolved = settings.resolved(
        len(rows), config.hidden_size, preferences=lesson.is_preferences, on_gpu=on_gpu
    )
    result = train(
        reference,
        family.tokenizer,
        rows,
        held_out,
        resolved,
        work.checkpoints,
        start=start,
        preferences=lesson.is_preferences,
        progress=progress,
    )
    return _Trained(result, resolved, renderer)


def _rows(renderer: Renderer, examples: tuple[Example, ...]) -> list[dict[str, list[int]]]:
    rows = []
    for example in examples:
        match example:
            case Conversation():
                rows += [text.to_row() for text in renderer.conversation(example)]
            case PreferencePair():
                rows.append(renderer.pair(example).to_row())
    return rows


def _public(settings: Settings) -> dict[str, Any]:
    """The settings for others: of a folder of this machine, only its name."""
    start = settings.start
    return replace(settings, start=Path(start).name if start and Path(start).exists() else start).to_dict()


def _card(
    name: str,
    family: Family,
    lesson: Lesson,
    license_name: str | None,
    trained: _Trained,
) -> BehaviorCard:
    result, settings = trained.result, trained.settings
    return BehaviorCard(
        name=name,
        base=family.model,
        reference=family.reference_name,
        reference_hash=family.reference_hash,
        source=Path(lesson.source).name if Path(lesson.source).exists() else lesson.source,
        data_hash=lesson.digest,
        license=license_name or lesson.license or family.license or "other",
        settings={**_public(settings), "method": "DPO" if lesson.is_preferences else "SFT"},
        measured={
            "examples": len(lesson.train),
            "held_out": len(lesson.held_out),
            "loss_before": result.loss_before,
            "loss_after": result.loss_after,
            "training_seconds": round(result.seconds, 1),
            "trained_parameters": result.trained_parameters,
        },
    )


def _candidate(card: BehaviorCard, family: Family, trained: _Trained, folder: Path) -> EFTChatModel:
    """The behavior as it will be used, from a folder of its own."""
    from langchain_eft.chat_models import EFTChatModel

    shutil.rmtree(folder, ignore_errors=True)
    trained.write(folder, card, family.reference_name, readme="")
    fields: dict[str, Any] = {}
    if family.recipe.chat_template is not None:
        fields["chat_template"] = family.recipe.chat_template
    delta = BehaviorDelta(adapter=str(folder), reference=family.reference)
    return EFTChatModel(
        model=family.model, behaviors={card.name: delta}, mixture={card.name: 1.0}, temperature=0.0, **fields
    )
