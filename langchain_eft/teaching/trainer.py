"""Training of the adapter, by trl's trainers: SFT for conversations, DPO for pairs."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from langchain_eft.engine.progress import Progress, quiet_transformers
from langchain_eft.teaching.answer_trainer import AnswerTrainer
from langchain_eft.teaching.errors import TeachingError, TeachingStoppedError
from langchain_eft.teaching.interrupt import StopRequest, stop_on_interrupt
from langchain_eft.teaching.order import ordered
from langchain_eft.teaching.settings import Settings

Rows = Sequence[dict[str, list[int]]]


@dataclass(frozen=True)
class TrainingResult:
    """What a training was, in figures.

    Attributes:
        adapter: Folder with the trained adapter in PEFT's format.
        loss_before: Mean loss of the held-out examples before the training, in nats per token of an answer;
            for pairs, DPO's loss.
        loss_after: The same after it.
        seconds: Time of the training, of the last run if it was resumed.
        steps: Steps of the optimizer.
        trained_parameters: Number of weights of the adapter.
    """

    adapter: Path
    loss_before: float
    loss_after: float
    seconds: float
    steps: int
    trained_parameters: int


def train(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    held_out: Rows,
    settings: Settings,
    folder: Path,
    *,
    start: Path | None = None,
    preferences: bool,
    progress: Progress,
) -> TrainingResult:
    """Train a LoRA on a model. A folder with checkpoints of the same training is continued.

    Args:
        model: The reference, as transformers loads it.
        tokenizer: The recipe's tokenizer; it says which id pads.
        rows: What is learned: `input_ids` and `labels`, or `prompt_ids`, `chosen_ids` and `rejected_ids`.
        held_out: What the loss is measured on, in the same form.
        settings: The settings, all of them resolved.
        folder: Where checkpoints are kept.
        start: The folder of an adapter to begin with.
        preferences: Whether the rows are pairs.
        progress: Receives the step, the loss and the time left.

    Raises:
        TeachingStoppedError: The user pressed Ctrl-C. The folder holds a checkpoint.
        TeachingError: The loss is not finite, or the disk is full.
    """
    set_seed(settings.seed)  # of the adapter's first weights
    stop = StopRequest()
    callback = _Callback(progress, stop)
    with _quiet(), quiet_transformers():
        adapter = _adapter(model, settings, start)
        trainer = _trainer(adapter, tokenizer, rows, held_out, settings, folder, callback, preferences)
        trainer.remove_callback(PrinterCallback)
        checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        before = _first_loss(trainer, folder, progress)
        started = time.monotonic()
        try:
            with stop_on_interrupt(stop):
                trainer.train(resume_from_checkpoint=checkpoint)
        except (OSError, RuntimeError) as error:
            raise _disk_error(error, folder) from error
        seconds = time.monotonic() - started
        step = int(trainer.state.global_step)
        last = Path(get_last_checkpoint(str(folder)) or folder)
        if stop.requested and step < trainer.args.max_steps:
            raise TeachingStoppedError(
                f"Stopped at step {step} of {trainer.args.max_steps}. {str(last)!r} is an adapter that "
                "can be used as it is. Go on with `resume` (--resume)."
            )
        progress("Measuring the loss on held-out examples")
        after = float(trainer.evaluate()["eval_loss"])
    if not after < float("inf"):  # true for NaN too
        raise TeachingError(
            f"The loss is {after} after {step} steps: lower learning_rate={settings.learning_rate}."
        )
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return TrainingResult(last, before, after, seconds, step, parameters)


def _adapter(model: Any, settings: Settings, start: Path | None) -> dict[str, Any]:
    """The trainer's arguments for the model: with the adapter to begin with, or with the form of a new one.

    Raises:
        TeachingError: The adapter to begin with does not fit the model.
    """
    if start is None:
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank or 8,
            lora_alpha=2 * (settings.rank or 8),
            lora_dropout=0.0,
            target_modules="all-linear",
        )
        return {"model": model, "peft_config": lora}
    try:
        return {"model": PeftModel.from_pretrained(model, str(start), is_trainable=True)}
    except (RuntimeError, ValueError) as error:  # other shapes, or layers that the model does not have
        reason = str(error).strip().splitlines()[-1].strip()
        raise TeachingError(
            f"start={settings.start!r} does not fit the reference ({reason}): begin with an adapter of this "
            "reference, or leave out `start`."
        ) from error


def _trainer(
    adapter: dict[str, Any],
    tokenizer: Any,
    rows: Rows,
    held_out: Rows,
    settings: Settings,
    folder: Path,
    callback: TrainerCallback,
    preferences: bool,  # noqa: FBT001
) -> Any:
    assert settings.steps is not None  # noqa: S101  (settings are resolved)
    on_gpu = torch.cuda.is_available()
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, settings.steps // 20),
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "seed": settings.seed,
        "bf16": settings.precision == "bfloat16",
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "gradient_checkpointing": on_gpu,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, settings.steps // 4),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,
        "train_sampling_strategy": "sequential",
    }
    common: dict[str, Any] = {
        **adapter,
        "processing_class": tokenizer,
        "train_dataset": Dataset.from_list(ordered(rows, settings.batch_size, settings.steps, settings.seed)),
        "eval_dataset": Dataset.from_list(list(held_out)),
        "callbacks": [callback],
    }
    if preferences:
        return _PairTrainer(args=DPOConfig(beta=settings.beta, **arguments), **common)
    prepared = {"skip_prepare_dataset": True}
    config = SFTConfig(dataset_kwargs=prepared, packing=False, **arguments)
    return (SFTTrainer if on_gpu else AnswerTrainer)(args=config, **common)


class _PairTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO on rows that are token ids already: they follow the recipe's template, and text stays text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def _first_loss(trainer: Any, folder: Path, progress: Progress) -> float:
    """The held-out loss before the first step, which a resumed training has measured already."""
    file = folder / "loss_before.txt"
    if file.is_file():
        return float(file.read_text(encoding="utf-8"))
    progress("Measuring the loss on held-out examples")
    loss = float(trainer.evaluate()["eval_loss"])
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(repr(loss), encoding="utf-8")
    return loss


class _Callback(TrainerCallback):  # type: ignore[misc]
    """Reports progress, and ends the training at the next step if the user asks for it."""

    def __init__(self, progress: Progress, stop: StopRequest, clock: Callable[[], float] = time.monotonic):
        self._progress, self._stop, self._clock = progress, stop, clock
        self._start, self._first_step = 0.0, 0

    def on_train_begin(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        """Remember when the training began."""
        self._start, self._first_step = self._clock(), state.global_step

    def on_step_end(self, _args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        """End the training with a checkpoint if that was asked for."""
        if self._stop.requested:
            control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: TrainerState, _control: Any, **details: Any) -> None:
        """Report the step, its loss and the time left."""
        loss = (details.get("logs") or {}).get("loss")
        done = state.global_step - self._first_step
        if loss is None or not done:
            return
        left = (self._clock() - self._start) / done * (state.max_steps - state.global_step)
        self._progress(
            f"Teaching: step {state.global_step} of {state.max_steps}, loss {float(loss):.3f}, "
            f"{time_left(left)} left"
        )


def time_left(seconds: float) -> str:
    """A duration in words: `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _disk_error(error: Exception, folder: Path) -> Exception:
    """A full disk as a message; other errors stay as they are."""
    full = "No space left" in str(error) or "No space left" in str(error.__cause__)
    if not full:
        return error
    return TeachingError(
        f"The checkpoint cannot be written to {str(folder)!r} ({error}): free some space, and go on with "
        "`resume` (--resume)."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the trainers: progress is reported here."""
    loggers = [logging.getLogger(name) for name in ("trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            enable_progress_bars()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
